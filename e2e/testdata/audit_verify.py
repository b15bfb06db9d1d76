#!/usr/bin/env python3
"""A second verifier of audit exports, written from cli/docs/audit-format.md alone.

Usage: audit_verify.py DIR KEY. It prints what is wrong and exits with 1, or
"proved", with the number of sealed fields, and exits with 0. Python's standard library is all it needs.
"""
import base64
import hashlib
import json
import os
import re
import sys

P = 2**255 - 19
Q = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


class Bad(Exception):
    pass


def check(ok, what):
    if not ok:
        raise Bad(what)


def sha(data):
    return hashlib.sha256(data).digest()


# Ed25519, RFC 8032, 5.1 and 6.

def add(a, b):
    e, f = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    g, h = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = f - e, h - g, h + g, f + e
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def multiply(n, point):
    out = (0, 1, 1, 0)
    while n > 0:
        if n & 1:
            out = add(out, point)
        point = add(point, point)
        n >>= 1
    return out


def equal(a, b):
    return (a[0] * b[2] - b[0] * a[2]) % P == 0 and (a[1] * b[2] - b[1] * a[2]) % P == 0


def decode(raw):
    y = int.from_bytes(raw, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    check(y < P, "a point out of range")
    xx = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(xx, (P + 3) // 8, P)
    if (x * x - xx) % P != 0:
        x = x * pow(2, (P - 1) // 4, P) % P
    check((x * x - xx) % P == 0 and not (x == 0 and sign), "no point of the curve")
    if x & 1 != sign:
        x = P - x
    return (x, y, 1, x * y % P)


BASE = decode((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def verified(public, message, signature):
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    if s >= Q:
        return False
    k = int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % Q
    try:
        return equal(multiply(s, BASE), add(decode(r), multiply(k, decode(public))))
    except Bad:
        return False


# Trees.

def leaf(data):
    return sha(b"\0" + data)


def node(a, b):
    return sha(b"\1" + a + b)


class Tree:
    def __init__(self):
        self.size, self.edges = 0, []

    def append(self, top):
        n = self.size
        while n & 1:
            top = node(self.edges.pop(), top)
            n >>= 1
        self.edges.append(top)
        self.size += 1

    def root(self):
        out = self.edges[-1]
        for edge in reversed(self.edges[:-1]):
            out = node(edge, out)
        return out


def included(i, n, top, proof, root):
    if not 0 <= i < n:
        return False
    fn, sn = i, n - 1
    for h in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            top = node(h, top)
            while fn & 1 == 0 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            top = node(top, h)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and top == root


def consistent(m, a, n, b, proof):
    if not 0 < m <= n:
        return False
    if m == n:
        return not proof and a == b
    if m & (m - 1) == 0:
        proof = [a] + proof
    if not proof:
        return False
    fn, sn = m - 1, n - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = proof[0]
    for h in proof[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node(h, fr), node(h, sr)
            while fn & 1 == 0 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node(sr, h)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and fr == a and sr == b


# Notes.

def unbase64(text):
    raw = base64.b64decode(text, validate=True)
    check(base64.b64encode(raw).decode() == text, "base64 that is not canonical")
    return raw


class Key:
    def __init__(self, text):
        self.name, digest, encoded = text.split("+", 2)
        raw = unbase64(encoded)
        self.hash = sha(self.name.encode() + b"\n" + raw)[:4]
        check(len(raw) == 33 and raw[0] == 1 and self.hash.hex() == digest, "not an audit key")
        self.public = raw[1:]

    def open(self, raw):
        text, split, lines = raw.decode().rpartition("\n\n")
        check(split and lines.endswith("\n"), "not a note")
        text, ours = text + "\n", 0
        for line in lines[:-1].split("\n"):
            dash, name, encoded = line.split(" ")
            signature = unbase64(encoded)
            check(dash == "\u2014" and len(signature) > 4, "not a line of a signature")
            if name == self.name and signature[:4] == self.hash:
                check(len(signature) == 68 and verified(self.public, text.encode(), signature[4:]), "a bad signature")
                ours += 1
        check(ours == 1, "not one signature by the log's key")
        return text


NUMBER = re.compile("0|[1-9][0-9]*")


def number(text):
    check(NUMBER.fullmatch(text), "not a number: %r" % text)
    return int(text)


class Checkpoint:
    def __init__(self, raw, key):
        text = key.open(raw) if key else raw.decode().partition("\n\n")[0] + "\n"
        lines = text.split("\n")
        check(len(lines) == 5 and lines[4] == "" and (not key or lines[0] == key.name), "not a checkpoint of this log")
        words = lines[3].split(" ")
        check(len(words) == 3 and words[0] == "zones", "no line of zones")
        self.size, self.root = number(lines[1]), unbase64(lines[2])
        self.zones, self.zones_root = number(words[1]), unbase64(words[2])


class Manifest:
    def __init__(self, raw, key):
        lines = key.open(raw).split("\n")
        check(lines[0] == "sluice audit export 1" and lines[-1] == "", "not a manifest")
        self.zones, self.files, self.former, values = {}, {}, [], {}
        for line in lines[1:-1]:
            word, value = line.split(" ", 1)
            if word == "zone":
                zone, name = value.split(" ", 1)
                self.zones[zone] = name
            elif word == "former":
                size, text = value.split(" ", 1)
                check(not self.former or number(size) > self.former[-1][0], "former logs out of order")
                self.former.append((number(size), None if text == "-" else Key(text)))
            elif word == "file":
                digest, size, path = value.split(" ", 2)
                self.files[path] = (digest, number(size))
            else:
                check(word in ("origin", "size", "program", "first", "last", "chunks", "events") and word not in values, "bad line " + line)
                values[word] = value
        check(values["origin"] == key.name, "of another log")
        self.size, self.first, self.last, self.events = (number(values[w]) for w in ("size", "first", "last", "events"))
        check(values["chunks"] in ("true", "false"), "bad chunks")
        self.chunks = values["chunks"] == "true"
        self.whole = not self.zones and self.first == 1 and self.last == self.size


SEALED = re.compile(rb'\{"seq":([1-9][0-9]*),("sealed":\{.+\})\}', re.S)
EVENT = re.compile(rb'\{"seq":(0|[1-9][0-9]*)(?:,"proof":\[((?:"[0-9a-f]{64}"(?:,(?="))?)*)\])?,"event":(.*)\}', re.S)


class Export:
    def __init__(self, path, key):
        self.path = path
        self.manifest = Manifest(self.read("manifest"), key)
        for name in self.names():
            check(name == "manifest" or name in self.manifest.files, name + ": not in the manifest")
        for name, (digest, size) in self.manifest.files.items():
            raw = self.read(name)
            check(len(raw) == size and sha(raw).hex() == digest, name + ": not what the manifest names")
        self.point = Checkpoint(self.read("checkpoint"), key)
        check(self.point.size == self.manifest.size, "checkpoint: of another size")
        self.key, self.chains, self.wanted, self.added = key, {}, set(), set()
        self.heads()
        self.points()
        self.named, self.here, self.values = 0, 0, {}
        self.sealed()
        self.events()
        check(not self.values, "sealed: values of an event that is not here")
        self.ends()
        self.contents()

    def read(self, name):
        with open(os.path.join(self.path, name), "rb") as f:
            return f.read()

    def names(self):
        for folder, _, files in os.walk(self.path):
            for name in files:
                yield os.path.relpath(os.path.join(folder, name), self.path)

    def lines(self, name):
        raw = self.read(name)
        check(raw == b"" or raw.endswith(b"\n"), name + ": a line without its end")
        return raw.split(b"\n")[:-1]

    def heads(self):
        self.known, before = {}, -1
        for line in self.lines("heads.jsonl"):
            h = json.loads(line)
            data = "%s %d %s" % (h["zone"], h["n"], h["hash"])
            check(h["index"] > before, "heads: out of order")
            before = h["index"]
            proof = [bytes.fromhex(p) for p in h["proof"]]
            check(included(h["index"], self.point.zones, leaf(data.encode()), proof, self.point.zones_root), "heads: zone " + h["zone"])
            check(not self.manifest.zones or h["zone"] in self.manifest.zones, "heads: a zone not asked for")
            self.known[h["zone"]] = (h["n"], h["hash"])
        if self.manifest.zones:
            check(set(self.known) == set(self.manifest.zones), "heads: a zone is missing")
        else:
            check(len(self.known) == self.point.zones, "heads: a zone is missing")

    def points(self):
        self.roots, self.notes, before = {}, {}, 0
        for line in self.lines("checkpoints.jsonl"):
            p = json.loads(line)
            keys = [key for size, key in self.manifest.former if p["seq"] <= size]
            earlier = Checkpoint(p["note"].encode(), keys[0] if keys else self.key)
            check(p["seq"] > before and earlier.size == p["size"], "checkpoints: event %d" % p["seq"])
            before = p["seq"]
            proof = [bytes.fromhex(h) for h in p["proof"]]
            check(consistent(earlier.size, earlier.root, self.point.size, self.point.root, proof), "checkpoints: event %d" % p["seq"])
            self.notes[p["seq"]] = p["note"]
            self.roots.setdefault(earlier.size, set()).add(earlier.root)

    def sealed(self):
        before = 0
        for name in [n for n in self.manifest.files if n.startswith("sealed-")]:
            for line in self.lines(name):
                match = SEALED.fullmatch(line)
                check(match and int(match[1]) > before, name + ": not a line of sealed values")
                before = int(match[1])
                fields = json.loads(b"{" + match[2] + b"}")["sealed"]
                again = json.dumps({"sealed": fields}, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
                check(fields and again[1:-1] == match[2], name + ": values that are not canonical")
                self.values[before] = fields

    def opened(self, seq, e, where):
        hashes, fields = e.get("sealed", {}), self.values.pop(seq, {})
        for field, value in fields.items():
            check(set(value) == {"salt", "value"} and len(unbase64(value["salt"])) == 16, where + "a bad salt")
            digest = sha(unbase64(value["salt"]) + value["value"].encode()).hex()
            check(hashes.get(field) == digest, where + "not what was sealed: " + field)
        self.named, self.here = self.named + len(hashes), self.here + len(fields)

    def events(self):
        m, tree, last, count = self.manifest, Tree(), 0, 0
        for name in [n for n in m.files if n.startswith("events-")]:
            for line in self.lines(name):
                match = EVENT.fullmatch(line)
                check(match and (match[2] is None) == m.whole, "%s: not a line of an event, behind event %d" % (name, last))
                seq, text = int(match[1]), match[3]
                where = "event %d: " % seq
                check(seq > last, where + "out of order")
                if not m.zones:
                    check(seq == max(last, m.first - 1) + 1, where + "some before it are missing")
                if m.whole:
                    tree.append(leaf(text))
                    for root in self.roots.get(tree.size, ()):
                        check(tree.root() == root, where + "not what an earlier checkpoint counts")
                else:
                    proof = [bytes.fromhex(h.decode()) for h in re.findall(rb"[0-9a-f]{64}", match[2])]
                    check(included(seq - 1, self.point.size, leaf(text), proof, self.point.root), where + "not in the checkpoint")
                last, count = seq, count + 1
                e = json.loads(text)
                self.opened(seq, e, where)
                self.event(seq, text, e, where)
        check(count == m.events, "manifest: another number of events")
        if not m.zones:
            check(last == m.last, "events behind %d are missing" % last)
        if m.whole:
            check(tree.size == self.point.size and tree.root() == self.point.root, "checkpoint: another root")

    def event(self, seq, text, e, where):
        m, zone, facts = self.manifest, e["zone"], e["facts"]
        if e["type"] == "journal.checkpointed":
            check(self.notes.get(seq) == facts["note"], where + "its checkpoint is missing")
        if m.chunks and m.first <= seq <= m.last and "manifest" in facts:
            self.want(facts["manifest"])
        if m.zones and zone == "_":
            check(e["type"] in ("zone.added", "zone.removed") and facts["id"] in m.zones, where + "not asked for")
            if e["type"] == "zone.added":
                self.added.add(facts["id"])
            return
        check(not m.zones or zone in m.zones, where + "not asked for")
        if zone in self.chains:
            n, digest, _ = self.chains[zone]
            check(e["n"] == n + 1 and e["prev"] == digest, where + "it does not follow the one before")
        elif e["n"] != 1:
            check(seq < m.first if m.zones else m.first > 1, where + "those before it are missing")
        self.chains[zone] = (e["n"], leaf(text).hex(), seq)

    def want(self, manifest):
        for c in manifest.get("chunks", []):
            self.wanted.add(c["sha256"])
        for c in manifest.get("indirect", []):
            self.wanted.add(c["sha256"])
            for inner in json.loads(self.read("chunks/" + c["sha256"])):
                self.wanted.add(inner["sha256"])

    def ends(self):
        m = self.manifest
        check(self.added == set(m.zones), "the event that added a zone is missing")
        for zone, head in self.known.items():
            chain = self.chains.get(zone)
            if m.zones:
                check(chain and (chain[:2] == head or chain[2] > m.last), "zone %s: its last events are missing" % zone)
            elif m.last == m.size and (chain or m.first == 1):
                check(chain and chain[:2] == head, "zone %s: another end" % zone)

    def contents(self):
        there = {n[len("chunks/"):] for n in self.manifest.files if n.startswith("chunks/")}
        check(there == self.wanted, "chunks: %d are here, %d wanted" % (len(there), len(self.wanted)))
        for name in there:
            check(self.manifest.files["chunks/" + name][0] == name, "chunks: a wrong name")


def main():
    try:
        export = Export(sys.argv[1], Key(sys.argv[2]))
    except (Bad, OSError, ValueError, KeyError, TypeError, IndexError) as e:
        print("%s: %s" % (type(e).__name__, e))
        return 1
    print("proved; %d sealed fields, %d here" % (export.named, export.here))
    return 0


if __name__ == "__main__":
    sys.exit(main())
