#!/usr/bin/env python3
"""Starts the example axum_server, sends requests from several loopback addresses, and stops it by signals.

    scripts/check-axum-server.py target/release/examples/axum_server

The exit code is 0 if all was as expected; otherwise an assertion says what was not. Nothing depends on how fast
the machine is: where a limit is to refuse, requests are repeated until it does.
"""

import contextlib
import http.client
import re
import signal
import subprocess
import sys
import time

BURST = 3


class Server:
    def __init__(self, *options):
        command = [sys.argv[1], "--listen", "127.0.0.1:0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        self.port = int(re.fullmatch(r"listening on http://127\.0\.0\.1:(\d+)/\n", line)[1])

    def connect(self, host):
        """A connection from 127.0.0.`host`."""
        source = (f"127.0.0.{host}", 0)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30, source_address=source)

    def get(self, host, path="/", **headers):
        with contextlib.closing(self.connect(host)) as connection:
            connection.request("GET", path, headers={name.replace("_", "-"): headers[name] for name in headers})
            answer = connection.getresponse()
            answer.text = answer.read().decode()
            return answer

    def exhaust(self, get):
        """Requests until one is refused; returns how many were admitted, and the refusal."""
        for admitted in range(100):
            answer = get(admitted)
            if answer.status == 429:
                return admitted, answer
            assert answer.status == 200, f"status {answer.status}: {answer.text}"
        raise AssertionError("100 requests were admitted, at 1 a second and 3 at once")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        line = self.process.stdout.readline()
        assert line.startswith("finishing the requests in flight"), line


def remaining(answer, rule):
    """What the header `RateLimit` says is left of a rule."""
    found = re.search(rf'"{rule}";r=(\d+)', answer.headers["ratelimit"])
    assert found, f"no rule {rule} in {answer.headers['ratelimit']}"
    return int(found[1])


def limits(server):
    first = server.get(1)
    assert first.status == 200 and remaining(first, "per-ip") == BURST - 1, first.headers
    assert f'"per-ip";q={BURST}' in first.headers["ratelimit-policy"], first.headers
    assert "per-api-key" not in first.headers["ratelimit-policy"], first.headers

    admitted, refused = server.exhaust(lambda _: server.get(1))
    assert admitted >= BURST - 1, f"{admitted + 1} were admitted at once, not {BURST}"
    assert int(refused.headers["retry-after"]) >= 1, refused.headers
    assert remaining(refused, "per-ip") == 0, refused.headers
    assert refused.headers["content-type"] == "application/problem+json", refused.headers
    assert remaining(server.get(2), "per-ip") == BURST - 1, "127.0.0.2 has its own limit"
    for _ in range(2 * BURST):
        health = server.get(1, "/health")
        assert health.status == 200 and "ratelimit" not in health.headers, health.headers
    # Who obeys Retry-After is admitted.
    _, refused = server.exhaust(lambda _: server.get(1))
    time.sleep(int(refused.headers["retry-after"]))
    assert server.get(1).status == 200, "refused after Retry-After"


def api_keys(server):
    hosts = iter(range(10, 200))
    used = []

    def get(_):
        used.append(next(hosts)) # each from an address of its own
        return server.get(used[-1], x_api_key="one")

    admitted, refused = server.exhaust(get)
    assert admitted >= BURST and '"violated-policies":["per-api-key"]' in refused.text, refused.text
    assert remaining(server.get(used[-1]), "per-ip") == BURST - 1, "a refusal took a token of the address"
    assert server.get(used[-1], x_api_key="two").status == 200, "another API key has its own limit"


def metrics(server):
    text = server.get(1, "/metrics").text
    for name, what in ("admitted_tokens_total", 'resource="all"'), ("denied_total", 'template="per-ip:"'):
        found = re.search(rf"^tollgate_{name}{{[^}}]*{what}[^}}]*}} ([1-9]\d*)$", text, re.MULTILINE)
        assert found, f"no tollgate_{name} of {what} in:\n{text}"


def proxies(server):
    _, refused = server.exhaust(lambda n: server.get(1, x_forwarded_for=f"192.0.2.{n}, 198.51.100.1"))
    assert '["per-ip"]' in refused.text, refused.text
    other = server.get(1, x_forwarded_for="198.51.100.1, 198.51.100.2")
    assert remaining(other, "per-ip") == BURST - 1, "another client of the proxy has its own limit"
    server.exhaust(lambda n: server.get(2, x_forwarded_for=f"192.0.2.{n}")) # no proxy: not believed


def begin_slow(server, seconds):
    connection = server.connect(3)
    connection.request("GET", f"/slow/{seconds}")
    answer = connection.getresponse()
    assert answer.readline() == b"begun\n"
    return answer


def main():
    options = ["--rate", "1", "--burst", str(BURST), "--api-key-rate", "1"]
    server = Server(*options, "--trusted-proxies", "127.0.0.7/32,127.0.0.8")
    limits(server)
    api_keys(server)
    metrics(server)
    slow = begin_slow(server, 2)
    server.stop()
    assert slow.read() == b"done\n", "the request in flight was not finished"
    code = server.process.wait(timeout=30)
    assert code == 0, f"exit code {code} after SIGTERM, not 0"
    assert server.process.stdout.read() == "stopped with 0 requests in flight\n"

    server = Server(*options, "--trusted-proxies", "127.0.0.1")
    proxies(server)
    slow = begin_slow(server, 200) # kept open
    server.stop()
    server.process.send_signal(signal.SIGINT)
    code = server.process.wait(timeout=30)
    assert code == 1, f"exit code {code} after a second signal, not 1"
    slow.close()
    print("200, 429 and headers by address and API key; metrics; shutdown")


main()
