#!/usr/bin/env python3
"""User-space instructions per request, by callgrind: those of 2 500 requests less those of 500, on the same connections.

instr.py NAMES WORKLOAD [CANDIDATES.toml …]   e.g. instr.py haproxy,outrigger h1   (a workload of h1, h1post, h2h1, h2h2)
Repeatable to about 1 % whatever runs beside it: judges changes that no timing can see. Needs valgrind and h2load."""

import glob
import os
import re
import subprocess
import sys
import time

import compare

FEW, MANY = 500, 2500
PROTOCOL = {"h1": "--h1", "h1post": "--h1 -d {body}", "h2h1": "-m 8", "h2h2": "-m 8"}
BODY = 16384


def load(url, protocol, requests):
    command = ["h2load", *protocol.split(), "-n", str(requests), "-c", "8", url]
    said = subprocess.run(command, capture_output=True, text=True, timeout=300).stdout
    if f"{requests} succeeded" not in said:
        sys.exit(said)


def instructions(path):
    with open(path) as f:
        text = f.read()
    return int(re.search(r"^(?:summary|totals): (\d+)", text, re.M)[1])


def per_request(proxy, workload):
    out = f"{proxy.options.run}/callgrind"
    for old in glob.glob(out + ".*"):
        os.remove(old)
    proxy.write_config()
    process = subprocess.Popen(
        ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"] + proxy.command(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def control(option):
        subprocess.run(["callgrind_control", option, str(process.pid)], capture_output=True)

    try:
        listener = compare.WORKLOADS[workload][0]
        for _ in range(300):
            if compare.listens(proxy.port(listener)):
                break
            time.sleep(0.1)
        body = f"{proxy.options.run}/body"
        with open(body, "wb") as f:
            f.write(b"x" * BODY)
        protocol = PROTOCOL[workload].format(body=body)
        url = f"http://127.0.0.1:{proxy.port(listener)}/1k"
        load(url, protocol, 400)  # opens what there is to open
        control("-z")
        for requests in (FEW, MANY):
            load(url, protocol, requests)
            control("-d")
        time.sleep(0.3)
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return (instructions(out + ".2") - instructions(out + ".1")) / (MANY - FEW)


def main():
    if len(sys.argv) < 3 or sys.argv[2] not in PROTOCOL:
        sys.exit(__doc__)
    options = compare.parse(["-w", sys.argv[2]])
    compare.set_up(options)
    upstream = compare.start_upstream(options)
    try:
        for candidate in compare.choose(compare.load_candidates(sys.argv[3:]), sys.argv[1]):
            proxy = compare.Proxy(candidate, options)
            print(f"{proxy.name} {sys.argv[2]}: {per_request(proxy, sys.argv[2]):.0f} instructions/request", flush=True)
    finally:
        upstream.terminate()
        upstream.wait()


if __name__ == "__main__":
    main()
