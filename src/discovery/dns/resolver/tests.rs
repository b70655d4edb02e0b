use std::fs;

use super::*;

fn name(text: &str) -> Name {
    parse_name(text).unwrap()
}

fn names(texts: &[&str]) -> Vec<Name> {
    texts.iter().map(|text| name(text)).collect()
}

/// A resolver over files of a directory, with a name server that nobody listens at.
fn resolver(directory: &tempfile::TempDir) -> Resolver {
    let files = SystemFiles {
        resolv_conf: directory.path().join("resolv.conf"),
        hosts: directory.path().join("hosts"),
    };
    Resolver::with_files(&[], &[], files).unwrap()
}

fn found(answer: &Answer) -> Vec<String> {
    let mut all = vec![];
    for family in [&answer.v4, &answer.v6] {
        if let FamilyAnswer::Addresses { addresses, .. } = family {
            all.extend(addresses.iter().map(ToString::to_string));
        }
    }
    all
}

#[test]
fn candidates_follow_the_search_list() {
    let search = names(&["blog.svc.test", "svc.test"]);
    let asked = |host: &str, ndots| -> Vec<String> {
        candidates(&name(host), &search, ndots).iter().map(Name::to_ascii).collect()
    };
    let searched = ["a.blog.svc.test.", "a.svc.test.", "a."];
    assert_eq!(asked("a", 1), searched);
    assert_eq!(asked("a.b", 1), ["a.b.", "a.b.blog.svc.test.", "a.b.svc.test."]);
    assert_eq!(asked("a.b", 5), ["a.b.blog.svc.test.", "a.b.svc.test.", "a.b."]);
    assert_eq!(asked("a.b.", 5), ["a.b."]);
    assert_eq!(asked("localhost", 1), ["localhost."]);
    assert_eq!(asked("a.localhost", 5), ["a.localhost."]);
}

#[test]
fn a_domain_that_makes_the_name_too_long_is_left_out() {
    let long = ["a".repeat(60), "b".repeat(60), "c".repeat(60)].join(".");
    let search = names(&[&long]);
    assert_eq!(candidates(&name(&long), &search, 9).len(), 1);
}

#[test]
fn what_is_no_name_is_refused_with_the_name() {
    for bad in ["", ".", "a..b", &"a".repeat(64)] {
        let error = parse_name(bad).unwrap_err();
        assert!(error.to_string().contains(&format!("`{bad}`")), "{error}");
    }
    assert!(Resolver::new(&[], &["a..b".to_owned()]).is_err());
}

#[tokio::test]
async fn an_address_stands_for_itself() {
    let directory = tempfile::tempdir().unwrap();
    let (answer, settled) = resolver(&directory).lookup(&name("192.0.2.7"), None).await;
    assert_eq!(found(&answer), ["192.0.2.7"]);
    assert_eq!(settled, None);
}

#[tokio::test]
async fn localhost_is_found_without_files_and_without_a_name_server() {
    let directory = tempfile::tempdir().unwrap();
    let (answer, _) = resolver(&directory).lookup(&name("localhost"), None).await;
    assert!(found(&answer).contains(&"127.0.0.1".to_owned()), "{answer:?}");
}

#[tokio::test]
async fn the_hosts_file_is_read_again_when_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let hosts = directory.path().join("hosts");
    fs::write(&hosts, "192.0.2.1 articles.test articles # both\n192.0.2.2 articles.test\n")
        .unwrap();
    let resolver = resolver(&directory);

    let (answer, settled) = resolver.lookup(&name("articles.test"), None).await;
    assert_eq!(found(&answer), ["192.0.2.1", "192.0.2.2"]);
    // The other family is settled too: DNS is not asked for it.
    assert!(matches!(answer.v6, FamilyAnswer::Addresses { .. }));
    assert_eq!(settled, None);

    let new = directory.path().join("new");
    fs::write(&new, "192.0.2.3 articles.test\n").unwrap();
    fs::rename(&new, &hosts).unwrap();
    let (answer, _) = resolver.lookup(&name("articles.test"), None).await;
    assert_eq!(found(&answer), ["192.0.2.3"]);
}

#[test]
fn resolv_conf_is_read_again_when_it_changes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("resolv.conf");
    fs::write(
        &file,
        "nameserver 192.0.2.53\nnameserver 192.0.2.54\nsearch a.test b.test\noptions ndots:5\n",
    )
    .unwrap();
    let resolver = resolver(&directory);
    let before = resolver.current();
    assert_eq!(before.system.servers.len(), 2);
    assert_eq!(before.search, names(&["a.test", "b.test"]));
    assert_eq!(before.ndots, 5);
    assert!(Arc::ptr_eq(&before, &resolver.current()), "unchanged files are not read again");

    fs::write(&file, "search c.test\n").unwrap();
    let after = resolver.current();
    assert_eq!(after.search, names(&["c.test"]));
    assert_eq!(after.system.servers, ["127.0.0.1:53".parse().unwrap()]);

    fs::remove_file(&file).unwrap();
    assert_eq!(resolver.current().servers.len(), 1);
}

#[test]
fn written_servers_and_domains_replace_those_of_the_system() {
    let directory = tempfile::tempdir().unwrap();
    let resolv_conf = directory.path().join("resolv.conf");
    fs::write(&resolv_conf, "nameserver 192.0.2.53\nsearch a.test\noptions ndots:5\n").unwrap();
    let files = SystemFiles { resolv_conf, hosts: directory.path().join("hosts") };
    let servers = ["192.0.2.1:5353", "192.0.2.2:53", "192.0.2.3:53"].map(|s| s.parse().unwrap());
    let resolver = Resolver::with_files(&servers, &["b.test".to_owned()], files).unwrap();
    let current = resolver.current();
    assert_eq!(current.servers.len(), 3);
    assert_eq!(current.search, names(&["b.test"]));
    assert_eq!(current.ndots, 1);
}
