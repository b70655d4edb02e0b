#!/usr/bin/env python3
"""Syscalls per request by kind: strace -f -c on the proxy during a bounded load.

syscalls.py NAMES WORKLOAD [CANDIDATES.toml …]   e.g. syscalls.py haproxy,outrigger h1"""

import signal
import subprocess
import sys
import time

import compare


def count(path):
    """Calls by name, from strace's summary."""
    calls = {}
    with open(path) as f:
        for line in f:
            fields = line.split()
            if len(fields) >= 5 and fields[0][0].isdigit() and fields[-1] != "total":
                calls[fields[-1]] = int(fields[3])
    return calls


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    names, workload = sys.argv[1], sys.argv[2]
    options = compare.parse(["-s", "3", "--warmup", "0", "-w", workload])
    compare.set_up(options)
    out = options.run + "/strace.out"
    upstream = compare.start_upstream(options)
    try:
        for candidate in compare.choose(compare.load_candidates(sys.argv[3:]), names):
            proxy = compare.Proxy(candidate, options).start()
            try:
                tracer = subprocess.Popen(
                    ["strace", "-f", "-c", "-o", out, "-p", str(proxy.process.pid)], stderr=subprocess.DEVNULL
                )
                time.sleep(0.7)
                figures = compare.measure(options, proxy, workload)
                tracer.send_signal(signal.SIGINT)
                tracer.wait()
                if not figures:
                    continue
                calls = {name: n / figures["ok"] for name, n in count(out).items()}
                kinds = sorted(calls.items(), key=lambda item: -item[1])
                shown = {name: round(n, 2) for name, n in kinds if n > 0.01}
                print(f"{proxy.name} {workload} total {sum(calls.values()):.2f} {shown}", flush=True)
            finally:
                proxy.stop()
    finally:
        upstream.terminate()
        upstream.wait()


if __name__ == "__main__":
    main()
