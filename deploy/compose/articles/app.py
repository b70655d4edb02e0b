"""Articles, each with its comments, which another service has.

Note what is not here: no address of that service, no retries, no circuit breaker, no metrics of the call. The call goes
to the sidecar on this machine, and the `Host` header names the service that is meant.
"""

import os

import requests
from flask import Flask, abort, jsonify, request

SIDECAR = os.environ.get("SIDECAR", "http://127.0.0.1:15001")

ARTICLES = {
    1: {"title": "On outriggers", "text": "A float beside the hull keeps the boat upright."},
    2: {"title": "On hulls", "text": "A narrow hull is fast and tips over."},
}

app = Flask(__name__)
session = requests.Session()


def comments_on(number):
    headers = {"Host": "comments"}
    # The same id in both services' logs.
    if "x-request-id" in request.headers:
        headers["x-request-id"] = request.headers["x-request-id"]
    reply = session.get(f"{SIDECAR}/comments", params={"article": number}, headers=headers, timeout=5)
    reply.raise_for_status()
    return reply.json()["comments"]


@app.get("/articles")
def articles():
    return jsonify(articles=[{"id": number, "title": x["title"]} for number, x in ARTICLES.items()])


@app.get("/articles/<int:number>")
def article(number):
    if number not in ARTICLES:
        abort(404)
    return jsonify(id=number, **ARTICLES[number], comments=comments_on(number))


@app.errorhandler(requests.RequestException)
def comments_are_down(error):
    return jsonify(error="comments are not available", cause=str(error)), 502


@app.get("/healthz")
def healthz():
    return "ok\n"
