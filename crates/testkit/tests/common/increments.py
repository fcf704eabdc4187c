"""32 clients that add 1 to a counter, through gRPC stubs, until a time is over.

usage: increments.py SECONDS ADDRESS…; prints what was answered as JSON.

Half of them repeat each increment under its request_id until it is answered ("retried"); the others try each
once, under a request_id as well ("plain"), and note what they cannot know.
"""

import json
import os
import sys
import threading
import time

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from isotherm.v1 import kv_pb2 as pb
from isotherm.v1 import kv_pb2_grpc

CLIENTS = 32
END = time.monotonic() + float(sys.argv[1])
ADDRESSES = sys.argv[2:]
# A connection that finds its node gone tries again soon.
options = [("grpc.max_reconnect_backoff_ms", 500), ("grpc.use_local_subchannel_pool", 1)]


def first_timestamp():
    """From any node: the first one may be away already."""
    while True:
        for address in ADDRESSES:
            try:
                stub = kv_pb2_grpc.KvStub(grpc.insecure_channel(address, options))
                return stub.Timestamp(pb.TimestampRequest(), timeout=5).ts
            except grpc.RpcError:
                if time.monotonic() > END:
                    raise


SINCE = first_timestamp()
lock = threading.Lock()
counts = {"retried": 0, "plain": 0, "unknown": 0, "refused": 0, "repeated": 0, "bare_unavailable": 0}


def count(**more):
    with lock:
        for name, n in more.items():
            counts[name] += n


def seen(ts):
    global SINCE
    with lock:
        SINCE = max(SINCE, ts)


def since():
    with lock:
        return SINCE


def error_info(error):
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == "isotherm.v1":
            return info
    return None


def is_unknown(error):
    info = error_info(error)
    if info is None:
        if error.code() == grpc.StatusCode.UNAVAILABLE:
            count(bare_unavailable=1)
        return True
    return info.metadata["applied"] != "no"


def increment(key):
    """Of half of the writes a late attempt would be refused, of the others it would be a new write."""
    request = pb.IncrementRequest(key=key, amount=1, request_id=os.urandom(16))
    if request.request_id[0] % 2:
        request.request_since = since()
    return request


def plain(nodes, turn):
    request = increment(b"plain")
    try:
        nodes[turn % len(nodes)].Increment(request, timeout=5)
        count(plain=1)
    except grpc.RpcError as error:
        count(**{"unknown" if is_unknown(error) else "refused": 1})


def retried(nodes, turn):
    request = increment(b"retried")
    for attempt in range(1000):
        try:
            answer = nodes[(turn + attempt) % len(nodes)].Increment(request, timeout=5)
            count(retried=1, repeated=int(attempt > 0))
            seen(answer.ts)
            return
        except grpc.RpcError as error:
            is_unknown(error)
            time.sleep(0.05)
    raise SystemExit("an increment was never answered")


def client(number):
    nodes = [kv_pb2_grpc.KvStub(grpc.insecure_channel(a, options)) for a in ADDRESSES]
    turn = number
    while time.monotonic() < END:
        (retried if number % 2 else plain)(nodes, turn)
        turn += 1


threads = [threading.Thread(target=client, args=(n,)) for n in range(CLIENTS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(counts))
