use envoy_types::pb::envoy::config::cluster::v3::LoadBalancingPolicy;
use envoy_types::pb::envoy::config::cluster::v3::cluster::CommonLbConfig;
use envoy_types::pb::envoy::config::cluster::v3::cluster::common_lb_config::ConsistentHashingLbConfig;
use envoy_types::pb::envoy::config::cluster::v3::load_balancing_policy::Policy;
use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::load_balancing_policies::common::v3::ConsistentHashingLbConfig as Typed;
use envoy_types::util::pack_any;

use super::*;

fn cluster(name: &str, lb_policy: LbPolicy) -> Cluster {
    Cluster { name: name.to_owned(), lb_policy: lb_policy.into(), ..Cluster::default() }
}

fn bounded(percent: u32) -> Cluster {
    let hash_balance_factor = Some(UInt32Value { value: percent });
    let bound = ConsistentHashingLbConfig { hash_balance_factor, ..Default::default() };
    let common = CommonLbConfig { consistent_hashing_lb_config: Some(bound), ..Default::default() };
    Cluster { common_lb_config: Some(common), ..cluster("articles", LbPolicy::RingHash) }
}

fn written(configs: Vec<Any>) -> Cluster {
    let policy = |config| Policy {
        typed_extension_config: Some(TypedExtensionConfig {
            name: "any".to_owned(),
            typed_config: Some(config),
        }),
    };
    let policies = configs.into_iter().map(policy).collect();
    Cluster {
        load_balancing_policy: Some(LoadBalancingPolicy { policies }),
        ..cluster("articles", LbPolicy::Maglev)
    }
}

fn response(version: &str, nonce: &str, resources: Vec<Any>) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: version.to_owned(),
        nonce: nonce.to_owned(),
        type_url: Cluster::type_url(),
        resources,
        ..DiscoveryResponse::default()
    }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn each_policy_that_we_have_is_understood_and_the_default_says_nothing() {
    for (lb_policy, expected) in [
        (LbPolicy::RoundRobin, AdvisedBalance::Unsaid),
        (LbPolicy::LeastRequest, AdvisedBalance::LeastRequest),
        (LbPolicy::Random, AdvisedBalance::Random),
        (LbPolicy::Maglev, AdvisedBalance::Maglev),
        (LbPolicy::RingHash, AdvisedBalance::RingHash { max_load: None }),
    ] {
        assert_eq!(policy(&cluster("articles", lb_policy)), Ok(expected));
    }
    let ring = |max_load| Ok(AdvisedBalance::RingHash { max_load });
    assert_eq!(policy(&bounded(0)), ring(None));
    assert_eq!(policy(&bounded(150)), ring(Some(150)));
    assert_eq!(policy(&bounded(5_000)), ring(None), "bounds nothing");
    assert!(policy(&bounded(99)).unwrap_err().contains("99 is less than 100"));
    let cluster = cluster("articles", LbPolicy::ClusterProvided);
    assert!(policy(&cluster).unwrap_err().contains("CLUSTER_PROVIDED is not supported"));
    let cluster = Cluster { lb_policy: 4, ..cluster };
    assert_eq!(policy(&cluster).unwrap_err(), "lb_policy: 4 is not known");
}

#[test]
fn of_written_policies_the_first_that_we_have_counts_and_beats_the_old_field() {
    let unknown = || Any { type_url: "example.com/wasm".to_owned(), value: vec![1] };
    let known = |cluster: &Cluster| policy(cluster);
    let round_robin = pack_any(RoundRobin::default());
    let both = written(vec![unknown(), round_robin, pack_any(Random::default())]);
    assert_eq!(known(&both), Ok(AdvisedBalance::RoundRobin), "written, so it is meant");
    let least = written(vec![pack_any(LeastRequest::default())]);
    assert_eq!(known(&least), Ok(AdvisedBalance::LeastRequest));
    let bound = Typed { hash_balance_factor: Some(UInt32Value { value: 200 }), ..Typed::default() };
    let ring = RingHash { consistent_hashing_lb_config: Some(bound), ..RingHash::default() };
    let ring = written(vec![pack_any(ring)]);
    assert_eq!(known(&ring), Ok(AdvisedBalance::RingHash { max_load: Some(200) }));
    let none = known(&written(vec![unknown()])).unwrap_err();
    assert!(none.contains("none is supported of [\"example.com/wasm\"]"), "{none}");
    let broken = Any { type_url: RingHash::type_url(), value: vec![0xff] };
    assert!(known(&written(vec![broken])).unwrap_err().contains("malformed"));
}

#[test]
fn clusters_are_asked_for_by_name_and_each_response_is_answered() {
    let mut clusters = Clusters::new();
    assert_eq!(clusters.want(names(&["articles", "orders"])), None, "no stream");
    let first = clusters.open().unwrap();
    assert_eq!((first.type_url.as_str(), first.node), (&*Cluster::type_url(), None));
    assert_eq!(first.resource_names, ["articles", "orders"]);

    let good = pack_any(cluster("articles", LbPolicy::Maglev));
    let other = pack_any(cluster("others", LbPolicy::ClusterProvided));
    let advice = clusters.take(&response("1", "a", vec![good.clone(), other])).unwrap();
    assert_eq!(advice.policies, [("articles".to_owned(), AdvisedBalance::Maglev)].into());
    let answer = advice.answer;
    assert_eq!((&*answer.version_info, &*answer.response_nonce), ("1", "a"));
    assert_eq!(answer.error_detail, None, "what was not asked for may be as it likes");

    let bad = pack_any(cluster("orders", LbPolicy::ClusterProvided));
    let advice = clusters.take(&response("2", "b", vec![good, bad])).unwrap();
    assert_eq!(advice.policies.len(), 1, "good ones are used all the same");
    assert_eq!((&*advice.answer.version_info, &*advice.answer.response_nonce), ("1", "b"));
    let refusal = advice.answer.error_detail.unwrap().message;
    assert_eq!(refusal, "orders: lb_policy: CLUSTER_PROVIDED is not supported");

    let garbage = Any { type_url: Cluster::type_url(), value: vec![0xff; 9] };
    let advice = clusters.take(&response("3", "c", vec![garbage])).unwrap();
    assert!(advice.mistakes[""].starts_with("resources[0]: malformed"), "{:?}", advice.mistakes);
    let other_type =
        DiscoveryResponse { type_url: "other".to_owned(), ..response("4", "d", vec![]) };
    assert_eq!(clusters.take(&other_type), None);
    clusters.close();
    assert_eq!(clusters.take(&response("5", "e", vec![])), None, "the stream is gone");
}
