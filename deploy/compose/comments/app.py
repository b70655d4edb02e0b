"""Comments on articles, kept in memory. Fails a share of its requests on purpose if FAIL_SHARE says so (0.0 to 1.0)."""

import os
import random
import socket

from flask import Flask, abort, jsonify, request

FAIL_SHARE = float(os.environ.get("FAIL_SHARE", "0"))

COMMENTS = {
    1: [{"by": "ada", "text": "Two floats are steadier than one."}],
    2: [{"by": "grace", "text": "Not if it has a float."}, {"by": "edsger", "text": "Considered harmful."}],
}

app = Flask(__name__)


@app.before_request
def fail_now_and_then():
    if request.path != "/healthz" and random.random() < FAIL_SHARE:
        abort(503)


@app.get("/comments")
def comments():
    article = request.args.get("article", type=int)
    return jsonify(comments=COMMENTS.get(article, []), served_by=socket.gethostname())


@app.post("/comments")
def add():
    comment = request.get_json()
    COMMENTS.setdefault(int(comment["article"]), []).append({"by": comment["by"], "text": comment["text"]})
    return "", 201


@app.get("/healthz")
def healthz():
    return "ok\n"
