#!/usr/bin/env python3
"""An independent reader of siltstone repositories (format 1) in a local folder, written from docs/FORMAT.md alone.

    silt_reader.py REPOSITORY [--password P] [--key-file F] [--recovery KEY] list
    silt_reader.py REPOSITORY [--password P] [--key-file F] [--recovery KEY] restore SNAPSHOT TARGET

SNAPSHOT is `latest` or the beginning of an id; TARGET must be missing or empty. Needs cryptography (44 or later), blake3, zstandard.
It reads and never writes the repository, and prefers being short to being fast.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import re
import stat
import struct
import sys
from collections import OrderedDict
from datetime import datetime, timedelta

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

MIB = 1 << 20
CHUNK_MAX, FRAME_RAW_MAX, PACK_MAX, OBJECT_MAX = 4 * MIB, 6 * MIB, 256 * MIB, 80 * MIB
ID = 24
FIRST_SECOND, LAST_SECOND = -62167219200, 253402207200
FILE, DIRECTORY, SYMLINK, BLOCK, CHAR, FIFO, STREAM = range(1, 8)


class Damaged(Exception):
    """Stored bytes are not what the format allows."""


class Newer(Damaged):
    """What opened needs a newer program."""


def check(condition, why):
    if not condition:
        raise Damaged(why)


# --- section 1: small forms ---------------------------------------------------------------------------------------


class Take:
    def __init__(self, data):
        self.data, self.at = data, 0

    def left(self):
        return len(self.data) - self.at

    def raw(self, length):
        check(length <= self.left(), "cut short")
        self.at += length
        return self.data[self.at - length : self.at]

    def byte(self):
        return self.raw(1)[0]

    def number(self, most=(1 << 64) - 1):
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                check(value <= most, f"a number is {value}, at most {most} is possible")
                return value
        raise Damaged("a number has too many bytes")

    def signed(self):
        value = self.number()
        return (value >> 1) ^ -(value & 1)

    def count(self, each):
        return self.number(self.left() // each)

    def bytes(self):
        return self.raw(self.number(self.left()))

    def u32(self):
        return struct.unpack("<I", self.raw(4))[0]

    def tagged(self):
        """Tagged values, of which each has one place."""
        last = -1
        for _ in range(self.count(2)):
            tag, value = self.number(), self.bytes()
            check(tag > last, "tagged values out of order")
            last = tag
            yield tag, value

    def end_with_tagged(self):
        """Values of newer writers may follow, and may be ignored."""
        if self.left():
            list(self.tagged())
        self.end()

    def end(self):
        check(self.left() == 0, "bytes follow that do not belong there")


# --- section 3: keys, HPKE ----------------------------------------------------------------------------------------


def derive(context, material):
    return blake3(material, derive_key_context=context).digest()


def hkdf_extract(salt, ikm):
    return hmac.new(salt or bytes(32), ikm, hashlib.sha256).digest()


def hkdf_expand(prk, info, length):
    out, block, number = b"", b"", 1
    while len(out) < length:
        block = hmac.new(prk, block + info + bytes([number]), hashlib.sha256).digest()
        out, number = out + block, number + 1
    return out[:length]


def labeled_extract(suite, salt, label, ikm):
    return hkdf_extract(salt, b"HPKE-v1" + suite + label + ikm)


def labeled_expand(suite, prk, label, info, length):
    return hkdf_expand(prk, struct.pack(">H", length) + b"HPKE-v1" + suite + label + info, length)


KEM = b"KEM" + struct.pack(">H", 0x20)
HPKE = b"HPKE" + struct.pack(">HHH", 0x20, 1, 2)


def hpke_key_pair(seed):
    prk = labeled_extract(KEM, b"", b"dkp_prk", seed)
    return X25519PrivateKey.from_private_bytes(labeled_expand(KEM, prk, b"sk", b"", 32))


def hpke_open(private, encapsulated, info, aad, sealed):
    mine = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    shared = private.exchange(X25519PublicKey.from_public_bytes(encapsulated))
    prk = labeled_extract(KEM, b"", b"eae_prk", shared)
    secret = labeled_expand(KEM, prk, b"shared_secret", encapsulated + mine, 32)
    context = (
        b"\0" + labeled_extract(HPKE, b"", b"psk_id_hash", b"") + labeled_extract(HPKE, b"", b"info_hash", info)
    )
    prk = labeled_extract(HPKE, secret, b"secret", b"")
    key = labeled_expand(HPKE, prk, b"key", context, 32)
    nonce = labeled_expand(HPKE, prk, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, sealed, aad)


class Keys:
    def __init__(self, master):
        self.content = derive("siltstone 2026 id of a content chunk", master)
        self.tree = derive("siltstone 2026 id of a tree chunk", master)
        self.writers = derive("siltstone 2026 objects for writers", master)
        pair = lambda of: hpke_key_pair(derive(f"siltstone 2026 key pair for {of}", master))
        self.snapshots, self.contents, self.trees = pair("snapshots"), pair("contents"), pair("trees")
        self.verifying = Ed25519PrivateKey.from_private_bytes(derive("siltstone 2026 signing key", master)).public_key()

    def chunk_id(self, data, tree):
        return blake3(data, key=self.tree if tree else self.content).digest()[:ID]


def read_secret(text):
    kept = "".join(text.split()).replace("-", "").upper()
    data = base64.b32decode(kept)
    check(len(data) == 35, "a written secret is too short or too long")
    secret = data[:32]
    check(derive("siltstone 2026 check sum of a written secret", secret)[:3] == data[32:], "a character is mistyped")
    return secret


# --- section 4: small sealed objects ------------------------------------------------------------------------------


def unzstd(packed, most):
    size = zstandard.frame_content_size(packed)
    check(0 <= size <= most, "a zstd frame states no size or too large a one")
    plain = zstandard.ZstdDecompressor().decompress(packed, max_output_size=max(size, 1)) if size else b""
    check(len(plain) == size, "a zstd frame is not as long as it states")
    return plain


def open_object(keys, purpose, data, most):
    check(len(data) >= 61 and data[:8] == b"siltobj1", f"not a sealed object ({purpose})")
    recipients, head, salt, rest = data[8], data[:13], data[13:45], data[45:]
    generation = struct.unpack("<I", head[9:])[0]
    check(generation == 0, f"the {purpose} was sealed with secrets of generation {generation}")
    associated = head + purpose.encode()
    try:
        if recipients == 1:
            key = derive("siltstone 2026 key of one object for writers", keys.writers + salt)
            body = AESGCM(key).decrypt(bytes(12), rest, associated)
        else:
            check(recipients == 2, "unknown recipients")
            body = hpke_open(keys.snapshots, salt, b"siltstone 2026 object for readers", associated, rest)
    except InvalidTag:
        raise Damaged(f"the {purpose} was changed or belongs to another repository") from None
    take = Take(body)
    return unzstd(take.raw(take.u32()), most)


def open_signed_object(keys, purpose, data, most):
    signed = open_object(keys, purpose, data, most)
    try:
        keys.verifying.verify(signed[:64], b"siltstone 2026 signed object\0" + purpose.encode() + b"\0" + signed[64:])
    except InvalidSignature:
        raise Damaged(f"the {purpose} was not written with a full key") from None
    return signed[64:]


# --- sections 5 to 8: repository ----------------------------------------------------------------------------------


def take_frames(take, count):
    frames = []
    for _ in range(count):
        stored, raw = take.number(PACK_MAX), take.number(FRAME_RAW_MAX)
        lengths = [take.number(CHUNK_MAX) for _ in range(take.count(1))]
        check(lengths and 0 not in lengths, "a frame without chunks, or with an empty one")
        check(sum(lengths) == raw, "the chunks of a frame do not fill it")
        frames.append((stored, raw, lengths))
    return frames


def master_of(bundle):
    """The master secret in a bundle of keys; other values of it are skipped."""
    take = Take(bundle)
    while take.left():
        tag, generation = take.byte(), take.u32()
        value = take.raw(struct.unpack("<H", take.raw(2))[0])
        if (tag, generation) == (1, 0):
            check(len(value) == 32, "a master secret of another length")
            return value
    raise Damaged("this key can add or list snapshots, and read nothing of them")


class Repository:
    def __init__(self, folder, password=None, key_file=None, recovery=None):
        self.folder = folder
        config = self.get("config", OBJECT_MAX)
        check(config[:8] == b"siltrepo" and len(config) > 28, "not a siltstone repository")
        version = struct.unpack("<I", config[8:12])[0]
        check(version == 1, f"format {version} is unknown")
        self.keys, self.config = self.unlock(config[28:], password, key_file, recovery)
        check(self.config["repository"] == config[12:28].hex(), "the repository's id was changed")
        self.check_settings()
        self.places = {}
        for name in self.list("index", "[0-9a-f]{64}"):
            try:
                self.read_index(name)
            except (Damaged, OSError) as error:
                # Others may name the same chunks.
                print(f"{name}: {error}", file=sys.stderr)
        self.pack_keys = {}
        self.frames = OrderedDict()

    def check_settings(self):
        """Lost or damaged settings stop writers only."""
        try:
            stored = self.get("settings", OBJECT_MAX)
            settings = json.loads(open_signed_object(self.keys, "settings", stored, 64 << 10))
            check(settings["repository"] == self.config["repository"], "the settings belong to another repository")
        except (Damaged, OSError, ValueError, KeyError) as error:
            print(f"settings: {error}", file=sys.stderr)
            return
        check(settings["version"] == 1, "the settings are of an unknown version")
        needed = settings.get("reader_features", [])
        check(not needed, f"the repository uses {needed}, which this reader does not know")

    def get(self, name, most):
        path = os.path.join(self.folder, name)
        check(os.path.getsize(path) <= most, f"{name} is too large")
        with open(path, "rb") as file:
            return file.read()

    def list(self, prefix, form):
        """Objects below a prefix; those whose names have another form are not of format 1, and ignored."""
        try:
            names = sorted(os.listdir(os.path.join(self.folder, prefix)))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [f"{prefix}/{name}" for name in names if re.fullmatch(form, name)]

    def unlock(self, config, password, key_file, recovery):
        if recovery:
            keys = Keys(recovery)
            return keys, json.loads(open_signed_object(keys, "configuration", config, 64 << 10))
        wanted = "+".join(w for w, have in (("password", password), ("key-file", key_file)) if have is not None)
        check(wanted, "neither password, key file nor recovery key given")
        for name in self.list("keys", "[0-9a-f]{16}")[:16384]:
            try:
                master = self.try_key(name, wanted, password, key_file)
                if master:
                    # One of another repository may open with the same password.
                    keys = Keys(master)
                    return keys, json.loads(open_signed_object(keys, "configuration", config, 64 << 10))
            except (Damaged, OSError, ValueError, KeyError, TypeError) as error:
                print(f"{name}: {error}", file=sys.stderr)
        raise Damaged(f"this {wanted} opens none of the repository's keys")

    def try_key(self, name, wanted, password, key_file):
        stored = json.loads(self.get(name, 16 << 10))
        if stored["version"] != 1 or stored["opens_with"] != wanted:
            return None
        names = ("version", "opens_with", "salt", "memory_kib", "passes", "lanes", "sealed")
        fields = "".join(f"{stored[field]}\n" for field in names)
        check(blake3(fields.encode()).hexdigest()[:16] == stored["check"], f"{name} was damaged")
        salt, memory = bytes.fromhex(stored["salt"]), stored["memory_kib"]
        passes, lanes = stored["passes"], stored["lanes"]
        check(len(salt) == 16 and memory <= 256 << 10 and passes <= 16 and lanes <= 4, f"{name}: cost out of bounds")
        stretched = bytes(32)
        if password is not None:
            kdf = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory)
            stretched = kdf.derive(password.encode())
        key = derive("siltstone 2026 key object", salt + stretched + (key_file or bytes(32)))
        sealed = base64.b64decode(stored["sealed"], validate=True)
        try:
            return master_of(AESGCM(key).decrypt(bytes(12), sealed, b"siltstone 2026 key object"))
        except InvalidTag:
            return None

    def read_index(self, name):
        data = self.get(name, OBJECT_MAX)
        check(blake3(data).hexdigest() == name.split("/")[1], f"{name} is not what its name says")
        take = Take(open_object(self.keys, "index", data, 64 * MIB))
        check(take.number() == 1, "an index object of an unknown version")
        packs = []
        for _ in range(take.count(36)):
            pack, tree = take.raw(32), take.byte() & 1 == 1
            stored, offset = take.number(PACK_MAX), take.number(4096)
            frames = take_frames(take, take.count(4))
            check(frames, "a pack without frames")
            check(offset + sum(frame[0] for frame in frames) <= stored, "frames reach behind their pack")
            packs.append((pack, tree, offset, frames))
        for pack, tree, offset, frames in packs:
            for number, (stored, raw, lengths) in enumerate(frames):
                at = 0
                for length in lengths:
                    self.places[take.raw(ID)] = (pack.hex(), tree, number, offset, stored, raw, at, length)
                    at += length
                offset += stored
        take.end_with_tagged()

    def range(self, name, offset, length):
        with open(os.path.join(self.folder, name), "rb") as file:
            file.seek(offset)
            data = file.read(length)
        check(len(data) == length, f"{name} is cut short")
        return data

    def frame(self, pack, tree, number, offset, stored, raw):
        if (pack, number) in self.frames:
            self.frames.move_to_end((pack, number))
            return self.frames[pack, number]
        name = f"packs/{pack[:2]}/{pack}"
        try:
            if pack not in self.pack_keys:
                head = self.range(name, 0, 92)
                check(head[:8] == b"siltpak1", f"{name} is no pack")
                check(head[8:12] == bytes(4), f"{name} was sealed with secrets of another generation")
                private = self.keys.trees if tree else self.keys.contents
                info = b"siltstone 2026 key of a pack"
                self.pack_keys[pack] = hpke_open(private, head[12:44], info, head[:12], head[44:])
            nonce = bytes(8) + struct.pack(">I", number)
            plain = AESGCM(self.pack_keys[pack]).decrypt(nonce, self.range(name, offset, stored), None)
        except InvalidTag:
            raise Damaged(f"{name} was changed since it was written") from None
        take = Take(plain)
        method, length = take.byte(), take.u32()
        check(length == raw and method in (0, 1), "a frame is not as long as the index says, or packed unknown")
        data = take.raw(take.left())
        if method == 1:
            data = zstandard.ZstdDecompressor().decompress(data, max_output_size=max(raw, 1))
        check(len(data) == raw, "a frame is not as long as it states")
        self.frames[pack, number] = data
        if len(self.frames) > 16:
            self.frames.popitem(last=False)
        return data

    def chunk(self, name, tree):
        check(name in self.places, f"no index object names the chunk {name.hex()}")
        *frame, at, length = self.places[name]
        data = self.frame(*frame)[at : at + length]
        check(self.keys.chunk_id(data, tree) == name, f"the chunk {name.hex()} is not what its name says")
        return data

    # --- section 12 and 13: snapshots

    def commits(self):
        """Snapshots that are committed and may not be in their place: their names and sealed bytes."""
        hexadecimal = "[0-9a-f]{32}"
        names = [name for key in self.list("pending", "[0-9a-f]{16}|recovery") for name in self.list(key, hexadecimal + ".*")]
        for name in names:
            writer, _, tail = name.partition(".")
            try:
                if not tail:
                    pending = json.loads(open_object(self.keys, "pending", self.get(name, OBJECT_MAX), 24 * MIB))
                    if pending["state"] == "committed":
                        yield pending["snapshot"], base64.b64decode(pending["body"], validate=True)
                # A draft is the snapshot's bytes and counts only once its token says that it is committed.
                elif tail.startswith("draft.") and os.path.exists(os.path.join(self.folder, writer + ".committed")):
                    yield f"snapshots/{tail[6:]}", self.get(name, OBJECT_MAX)
            except (Damaged, OSError, ValueError, KeyError) as error:
                print(f"{name}: {error}", file=sys.stderr)

    def snapshots(self):
        bodies = {}
        for name in self.list("snapshots", "[0-9]{8}t[0-9]{6}z-[0-9a-f]{32}"):
            bodies[name] = [self.get(name, OBJECT_MAX)]
        in_place = set(bodies)
        # The object in its place counts, if it can be opened; then the first commit, by the name of its pending object.
        for name, body in self.commits():
            bodies.setdefault(name, []).append(body)
        found = []
        for name in sorted(bodies):
            opened, newer = [], False
            for number, body in enumerate(bodies[name]):
                try:
                    opened.append((number, self.open_snapshot(name, body)))
                except (Damaged, ValueError, KeyError, TypeError) as error:
                    newer = newer or isinstance(error, Newer)
                    print(f"{name}: {error}", file=sys.stderr)
            if newer and not (name in in_place and opened and opened[0][0] == 0):
                continue  # no commit takes the place of what a newer program reads
            opened = [snapshot for _, snapshot in opened]
            if any(other != opened[0] for other in opened):
                print(f"{name}: a commit of this name says something else", file=sys.stderr)
            found += opened[:1]
        moment = lambda stamp: (stamp["seconds"], stamp["nanoseconds"])
        found.sort(key=lambda s: (moment(s["started"]), moment(s["ended"]), s["id"]))
        return found

    def open_snapshot(self, name, body):
        snapshot = read_snapshot(open_object(self.keys, "snapshot", body, 16 * MIB))
        stated = f"snapshots/{compact(snapshot['started']['seconds'])}-{snapshot['id']}"
        check(stated == name, f"{name} stands under the name of another")
        return snapshot

    # --- section 9: directories

    def directory(self, root):
        last = b""
        for entry in self.entries(root, 1):
            check(entry.name > last, "the pages of a directory are out of order")
            last = entry.name
            yield entry

    def entries(self, page, depth):
        check(depth <= 25, "the pages of a directory lie too deep")
        take = Take(self.chunk(page, True))
        check(take.raw(2) == b"T\1", "not a tree page")
        level = take.byte()
        if level == 0:
            yield from take_entries(take)
            return
        check(level <= 8, "too many levels")
        for _, below in take_inner(take):
            yield from self.entries(below, depth + 1)

    # --- section 10: content

    def content(self, entry):
        """The bytes without holes, in pieces."""
        expected = entry.size - sum(length for _, length in entry.holes)
        got = 0
        if entry.form == 1:
            pieces = [entry.inline]
        elif entry.form in (2, 3):
            pieces = (self.chunk(name, False) for name in self.chunk_names(entry))
        else:
            pieces = []
        for piece in pieces:
            got += len(piece)
            check(got <= expected, "content is longer than its size")
            yield piece
        check(got == expected, "content is shorter than its size")

    def chunk_names(self, entry):
        if entry.form == 2:
            yield from entry.ids
        else:
            check(1 <= entry.depth <= 6, "a chunk list has no or too many levels")
            yield from self.list_names(entry.depth - 1, entry.ids[0])

    def list_names(self, level, name):
        # How long what is below is tells those who read from the middle.
        for below, _ in take_list(Take(self.chunk(name, True)), level):
            if level == 0:
                yield below
            else:
                yield from self.list_names(level - 1, below)


class Entry:
    def __init__(self, name):
        self.name = name
        self.size, self.holes, self.xattrs, self.ids = 0, [], [], []
        self.target, self.inline, self.device, self.links, self.flags, self.depth = b"", b"", (0, 0), 0, 0, 0
        self.partial = self.doubtful = self.mounted = self.lacks_xattrs = False


def valid_name(name):
    return 0 < len(name) <= 1024 and name not in (b".", b"..") and b"/" not in name and b"\0" not in name


def take_entries(take):
    entries = []
    name = b""
    for _ in range(take.count(9)):
        shared = take.number(len(name))
        following = name[:shared] + take.bytes()
        check(valid_name(following) and following > name, "a name is invalid or out of order")
        name = following
        entries.append(Entry(name))
    for entry in entries:
        byte = take.byte()
        entry.kind, entry.form = byte & 15, byte >> 4
        allowed = {FILE: (0, 1, 2, 3), STREAM: (0, 1, 2, 3), DIRECTORY: (0, 4)}.get(entry.kind, (0,))
        check(1 <= entry.kind <= 7 and entry.form in allowed, "an unknown kind, or content that it cannot have")
    most = (1 << 32) - 1
    owners = [
        (take.number(0o7777), take.number(most), take.number(most), take.bytes(), take.bytes())
        for _ in range(take.count(5))
    ]
    for entry in entries:
        at = take.number()
        check(at < len(owners), "an owner is not in its table")
        entry.mode, entry.uid, entry.gid, entry.user, entry.group = owners[at]
    seconds = 0
    for entry in entries:
        seconds = (seconds + take.signed() + (1 << 63)) % (1 << 64) - (1 << 63)
        entry.seconds = seconds
    for entry in entries:
        entry.nanoseconds = take.u32()
        check(entry.nanoseconds < 10**9, "a time has too many nanoseconds")
    for entry in entries:
        if entry.kind in (FILE, STREAM):
            entry.size = take.number((1 << 63) - 1)
    extras = take.raw(len(entries))
    for entry, bits in zip(entries, extras):
        check(bits < 128, "an unknown extra")
        if bits & 1:
            entry.target = take.bytes()
            check(len(entry.target) <= 4096 and b"\0" not in entry.target, "an invalid target of a link")
        if bits & 2:
            entry.device = (take.number(most), take.number(most))
        if bits & 4:
            entry.links = struct.unpack("<Q", take.raw(8))[0]
        if bits & 8:
            entry.xattrs = [(take.bytes(), take.bytes()) for _ in range(take.count(2))]
            check(all(n and b"\0" not in n for n, _ in entry.xattrs), "an invalid name of an extended attribute")
        if bits & 16:
            count, at = take.count(2), 0
            check(count <= 4096, "too many holes")
            for _ in range(count):
                offset = at + take.number()
                length = take.number()
                at = offset + length
                check(length > 0 and at <= entry.size, "a hole lies outside its file")
                entry.holes.append((offset, length))
        if bits & 32:
            entry.flags = take.number(most)
        if bits & 64:
            for tag, value in take.tagged():
                if tag == 1:
                    check(value == b"" and entry.kind == DIRECTORY, "a malformed mark of a partial directory")
                    entry.partial = True
                elif tag == 2:
                    check(value == b"" and entry.kind == FILE, "a malformed mark of a doubtful file")
                    entry.doubtful = True
                elif tag == 3:
                    check(value == b"" and entry.kind in (FILE, DIRECTORY), "a malformed mark of a mounted entry")
                    entry.mounted = True
                elif tag == 5:
                    check(value == b"", "a malformed mark of an entry that lacks attributes")
                    entry.lacks_xattrs = True
    counts = []
    for entry in entries:
        count = {0: 0, 1: 0, 3: 1, 4: 1}.get(entry.form)
        if entry.form == 1:
            entry.inline = take.bytes()
        elif entry.form == 2:
            count = take.number(3)
            check(count > 0, "content without chunks")
        elif entry.form == 3:
            entry.depth = take.byte()
        counts.append(count)
    for entry, count in zip(entries, counts):
        entry.ids = [take.raw(ID) for _ in range(count)]
    take.end_with_tagged()
    return entries


# --- single objects in plain form -----------------------------------------------------------------------------------


def take_inner(take):
    names = [take.bytes() for _ in range(take.count(1 + ID))]
    check(names, "an inner page names no pages")
    check(all(valid_name(n) for n in names), "an inner page has an invalid name")
    check(all(a < b for a, b in zip(names, names[1:])), "an inner page is out of order")
    pages = [take.raw(ID) for _ in names]
    take.end_with_tagged()
    return list(zip(names, pages))


def take_list(take, level):
    check(take.raw(3) == bytes([ord("L"), 1, level]), "not a chunk list of the level expected")
    each = ID + (8 if level else 0)
    check(take.left() > 0 and take.left() % each == 0, "a chunk list has a wrong length")
    check(take.left() <= 8192 * each, "a chunk list is too long")
    items = []
    while take.left():
        items.append((take.raw(ID), struct.unpack("<Q", take.raw(8))[0] if level else None))
    if level:
        lengths = [length for _, length in items]
        check(all(lengths) and sum(lengths) < 1 << 63, "the lengths in a chunk list are out of bounds")
    return items


def read_snapshot(plain):
    snapshot = json.loads(plain)
    if snapshot["version"] != 1:
        raise Newer("a snapshot of an unknown version")
    if snapshot.get("features"):
        raise Newer(f"a snapshot uses {snapshot.get('features')}, unknown to this reader")
    check(len(bytes.fromhex(snapshot["root"])) == ID, "a snapshot whose root is no id")
    check(isinstance(snapshot["totals"], dict), "a snapshot without totals")
    check(isinstance(snapshot.get("lacks_trusted", False), bool), "a snapshot lacks neither some attributes nor none")
    for stamp in (snapshot["started"], snapshot["ended"]):
        check(FIRST_SECOND <= stamp["seconds"] <= LAST_SECOND, "a snapshot of a time too early or too late")
        check(0 <= stamp["nanoseconds"] < 10**9, "a time has too many nanoseconds")
        check(abs(stamp.get("offset", 0)) <= 86340, "a clock has an offset of more than 23:59 hours")
    return snapshot


def compact(seconds):
    """A time as names of snapshots have it. The calendar repeats after 400 years, and Python's begins with the year 1."""
    cycle = 146097 * 86400
    early = seconds < 0
    moment = datetime(1970, 1, 1) + timedelta(seconds=seconds + (cycle if early else 0))
    return f"{moment.year - (400 if early else 0):04}{moment:%m%dt%H%M%Sz}"


def path_bytes(path):
    return path.encode() if isinstance(path, str) else base64.b64decode(path["base64"], validate=True)


def say_entry(entry):
    words = [
        f"{entry.name.hex()} kind={entry.kind} mode={entry.mode:o} owner={entry.uid}:{entry.gid}",
        f"names={entry.user.decode()}:{entry.group.decode()} time={entry.seconds}.{entry.nanoseconds:09}",
        f"size={entry.size} links={entry.links} flags={entry.flags} partial={int(entry.partial)}",
        f"target={entry.target.hex()} device={entry.device[0]}:{entry.device[1]}",
    ]
    words += ["doubtful"] if entry.doubtful else []
    words += ["mounted"] if entry.mounted else []
    words += ["lacks-attributes"] if entry.lacks_xattrs else []
    words += [f"xattr={name.hex()}:{value.hex()}" for name, value in entry.xattrs]
    words += [f"hole={offset}+{length}" for offset, length in entry.holes]
    if entry.form == 1:
        words.append(f"inline={entry.inline.hex()}")
    if entry.form == 3:
        words.append(f"depth={entry.depth}")
    words += [f"id={name.hex()}" for name in entry.ids]
    return " ".join(words)


def say_source(source):
    if source["kind"] == "tree":
        return f"tree={path_bytes(source['path']).hex()}"
    if source["kind"] == "stream":
        return f"stream={path_bytes(source['name']).hex()}:{source.get('command', '')}"
    return f"unknown={source['kind']}"


def say_snapshot(s):
    words = [f"id={s['id']} started={s['started']['seconds']}.{s['started']['nanoseconds']:09}"]
    words.append(f"host={s['host']} user={s.get('user', '')} job={s.get('job', '')} tags={','.join(s.get('tags', []))}")
    words.append(f"root={s['root']} files={s['totals'].get('files', 0)} bytes={s['totals'].get('bytes', 0)}")
    words += [say_source(source) for source in s["sources"]]
    words += [f"warning={path_bytes(w['path']).hex()}:{w['what']}" for w in s.get("warnings", [])]
    words.append(f"warnings={s['warnings_count']}")
    return " ".join(words + (["lacks-trusted"] if s.get("lacks_trusted") else []))


def say_plain(kind, data):
    """What an object says, in the words of tests/golden/v1/frozen.txt."""
    take = Take(data)
    if kind == "page":
        check(take.raw(2) == b"T\1", "not a tree page")
        level = take.byte()
        check(level <= 8, "too many levels")
        if level:
            return " ".join(f"{name.hex()}={page.hex()}" for name, page in take_inner(take))
        return " | ".join(say_entry(entry) for entry in take_entries(take))
    if kind in ("list0", "list1"):
        items = take_list(take, int(kind[4:]))
        return " ".join(name.hex() + (f":{length}" if length is not None else "") for name, length in items)
    return say_snapshot(read_snapshot(data))


def compare_plain(path):
    """Compares what this reader says of each object in a file with what stands beside it; the number of differences."""
    compared = wrong = 0
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            kind, name, data, says = line.rstrip("\n").split("\t")
            if kind == "trailer":
                continue  # this reader goes by the index
            try:
                said = say_plain(kind, bytes.fromhex(data))
            except (Damaged, ValueError, KeyError):
                said = "refused"
            compared += 1
            if said != says:
                wrong += 1
                print(f"{kind} {name}: {said}, not {says}", file=sys.stderr)
    print(f"{compared} objects compared")
    return 1 if wrong else 0


# --- restore ------------------------------------------------------------------------------------------------------


class Restore:
    """Everything goes through descriptors of directories that this run made: no name leads outside the target."""

    def __init__(self, repo, target):
        self.repo, self.target = repo, os.fsencode(os.path.abspath(target))
        self.first_of = {}
        self.problems = 0

    def run(self, root):
        os.makedirs(self.target, exist_ok=True)
        if os.listdir(self.target):
            raise Damaged("the target is not empty")
        here = os.open(self.target, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self.directory(here, b"", root)
        finally:
            os.close(here)

    def directory(self, here, path, root):
        for entry in self.repo.directory(root):
            self.entry(here, path + b"/" + entry.name, entry)

    def entry(self, here, path, entry):
        check(valid_name(entry.name) and len(path) <= 4097, "a name that would leave the target, or too long a path")
        agreed = (entry.links, entry.kind, entry.mode, entry.uid, entry.gid, entry.seconds, entry.nanoseconds)
        agreed += (entry.size, entry.form, entry.inline, entry.depth, tuple(entry.ids), tuple(entry.holes))
        agreed += (entry.target, entry.device)
        if entry.links and agreed in self.first_of:
            os.link(self.target + self.first_of[agreed], entry.name, dst_dir_fd=here, follow_symlinks=False)
            return
        if entry.kind == DIRECTORY:
            os.mkdir(entry.name, 0o700, dir_fd=here)
            below = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            try:
                if entry.form == 4:
                    self.directory(below, path, entry.ids[0])
                self.describe(below, path, entry)
            finally:
                os.close(below)
        elif entry.kind in (FILE, STREAM):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            file = os.open(entry.name, flags, 0o600, dir_fd=here)
            try:
                self.write(file, entry)
                self.describe(file, path, entry)
            finally:
                os.close(file)
        else:
            if entry.kind == SYMLINK:
                os.symlink(entry.target, entry.name, dir_fd=here)
            elif entry.kind == FIFO:
                os.mkfifo(entry.name, 0o600, dir_fd=here)
            else:
                kind = stat.S_IFBLK if entry.kind == BLOCK else stat.S_IFCHR
                try:
                    os.mknod(entry.name, kind | 0o600, os.makedev(*entry.device), dir_fd=here)
                except OSError as error:
                    return self.problem(path, error)
            self.describe_special(here, path, entry)
        if entry.links:
            self.first_of[agreed] = path

    def write(self, file, entry):
        holes = iter(entry.holes + [(entry.size, 0)])
        at, hole = 0, next(holes)
        for piece in self.repo.content(entry):
            while piece:
                while at == hole[0] and hole[1]:
                    at, hole = at + hole[1], next(holes)
                part = piece[: hole[0] - at]
                check(part, "content is longer than its size")
                written = os.pwrite(file, part, at)
                at, piece = at + written, piece[written:]
        os.ftruncate(file, entry.size)

    def describe(self, fd, path, entry):
        if os.geteuid() == 0:
            os.fchown(fd, entry.uid, entry.gid)
        for name, value in entry.xattrs:
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                self.problem(path, error)
        os.fchmod(fd, entry.mode)
        os.utime(fd, ns=self.times(entry))

    def describe_special(self, here, path, entry):
        if os.geteuid() == 0:
            os.chown(entry.name, entry.uid, entry.gid, dir_fd=here, follow_symlinks=False)
        for name, value in entry.xattrs:
            try:
                os.setxattr(b"/proc/self/fd/%d/%s" % (here, entry.name), name, value, follow_symlinks=False)
            except OSError as error:
                self.problem(path, error)
        if entry.kind != SYMLINK:
            os.chmod(entry.name, entry.mode, dir_fd=here)
        os.utime(entry.name, ns=self.times(entry), dir_fd=here, follow_symlinks=False)

    def times(self, entry):
        modified = entry.seconds * 10**9 + entry.nanoseconds
        return (modified, modified)

    def problem(self, path, error):
        """What this file system or this user cannot have: attributes and devices; the rest goes on, exit code 3."""
        self.problems += 1
        print(f"{path!r}: {error.strerror}", file=sys.stderr)


def choose(snapshots, word):
    if word == "latest":
        check(snapshots, "there is no snapshot")
        return snapshots[-1]
    found = [s for s in snapshots if s["id"].startswith(word)]
    check(len(found) == 1, f"{len(found)} snapshots begin with {word}")
    return found[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository")
    parser.add_argument("--password")
    parser.add_argument("--key-file")
    parser.add_argument("--recovery")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list")
    verbs.add_parser("plain", help="compare single objects in a file, which is named instead of a repository")
    restore = verbs.add_parser("restore")
    restore.add_argument("snapshot")
    restore.add_argument("target")
    words = parser.parse_args()
    if words.verb == "plain":
        return compare_plain(words.repository)
    key_file = None
    if words.key_file:
        with open(words.key_file, encoding="ascii") as file:
            key_file = read_secret(file.read())
    recovery = read_secret(words.recovery) if words.recovery else None
    repo = Repository(words.repository, words.password, key_file, recovery)
    snapshots = repo.snapshots()
    if words.verb == "list":
        for s in snapshots:
            began = compact(s["started"]["seconds"])
            print(s["id"], began, s["host"], s["totals"].get("files", 0), s["totals"].get("bytes", 0), sep="\t")
        return 0
    job = Restore(repo, words.target)
    job.run(bytes.fromhex(choose(snapshots, words.snapshot)["root"]))
    return 3 if job.problems else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Damaged, OSError, ValueError, KeyError, zstandard.ZstdError) as error:
        print(f"silt_reader: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
