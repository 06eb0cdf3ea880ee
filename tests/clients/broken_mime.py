"""MIME messages as they should not be, for two servers to agree on."""

import random

_TYPES = (
    *("text/plain", "TEXT/HTML", "text/plain; charset=utf-8", "application/pdf"),
    *("text", "text/", "/plain", "text plain", "garbage; x=y", "", "message/rfc822"),
    *("text/plain; charset=", "text/plain; charset", "text/plain;;charset=a;"),
    *('text/plain; name="a \\"b\\" c"; charset=us-ascii', "text/plain (c); x=(d) y"),
    *("text/plain; name*=utf-8''%C3%BCber.txt", "text/plain; n*0=a; n*1*=%20b"),
    *('image/png; name="=?utf-8?q?=C3=BC?="', "text/plain;\n\tcharset=utf-8;\n x=y"),
    *("text/plain; charset=\xfcnder", "message/delivery-status", "message/partial"),
    *("text/rfc822-headers", "multipart/mixed", 'multipart/mixed; boundary=""'),
)
_ENCODINGS = (
    "7bit",
    "8BIT",
    "base64",
    "quoted-printable",
    "x-own",
    "a b",
    "",
    "(c) 7bit",
)
_DISPOSITIONS = (
    *("inline", 'attachment; filename="a b.txt"', "ATTACHMENT", "attachment;", ""),
    *("attachment; filename=a b", "attachment; filename*=utf-8''%C3%BC", "; x=y"),
)
_OTHERS = (
    *("Content-ID: <a@b>", "Content-ID: ", "Content-Description: words  and words"),
    *("Content-Description: =?utf-8?q?=C3=BC?=", "Content-MD5: Q2hlY2s="),
    *("Content-Language: en", "Content-Language: en, de", "Content-Language: (c) en,"),
    *("Content-Location: http://x.test/a", "Content-Location: a\n b", "X-Own: 1"),
    *("no colon here", "Bad Name: x", "Empty:", ": nameless", " leading blank"),
)
_LINES = (
    *(
        "words",
        "",
        "--",
        "--x",
        "--b0 not quite",
        "From here",
        ".",
        "\tx",
        "long " * 60,
    ),
    *("Content-Type: text/html", "\xfcber", "a\rb", "nul \0 octet", "  "),
)
_HEADS = (
    *("From: Anna <anna@example.test>", "To: ben@example.test", "Subject: words"),
    *("Date: Mon, 2 Mar 2026 10:00:00 +0100", "Message-ID: <a@b>"),
    *("Subject:", "Subject: \xfcber", "Subject: a\n\n b", 'From: "a', "Cc: a, , b;;"),
    *("From: a@b (c (d) e)", "To: g: a@b, c@d;, e@f", "Reply-To: <>", "Sender: x"),
    *("In-Reply-To: <x@y>\n <z@y>", "From: =?utf-8?b?w7w=?= <u@x>", "To: <@r:a@b>"),
)


def broken_mime(count: int = 400, seed: int = 1) -> list[bytes]:
    """Return messages with LF lines, the same ones for the same `seed`."""
    rng = random.Random(seed)
    return [_message(rng).encode("latin-1") for _ in range(count)]


def _message(rng: random.Random) -> str:
    heads = rng.sample(_HEADS, rng.randrange(0, 7))
    if rng.random() < 0.9:
        heads.append("MIME-Version: 1.0")
    text = "\n".join([*heads, *_entity(rng, 0)])
    match rng.randrange(20):
        case 0:
            return text[: rng.randrange(len(text) + 1)]
        case 1:
            return text.replace("\n", "\r\n")
        case 2:
            return text.replace("\n\n", "\n", 1)
        case _:
            return text


def _entity(rng: random.Random, depth: int) -> list[str]:
    """Return the lines of a part: its MIME fields, and its body."""
    fields = rng.sample(_OTHERS, rng.randrange(0, 3))
    if rng.random() < 0.4:
        fields.append(f"Content-Disposition: {rng.choice(_DISPOSITIONS)}")
    if rng.random() < 0.4:
        fields.append(f"Content-Transfer-Encoding: {rng.choice(_ENCODINGS)}")
    kind = rng.random()
    if depth < 4 and kind < 0.55 - depth * 0.1:
        boundary, body = _multipart(rng, depth)
        subtype = rng.choice(("mixed", "alternative", "digest", "signed; micalg=x"))
        fields.append(f"Content-Type: multipart/{subtype}; boundary={boundary}")
    elif depth < 4 and kind < 0.65:
        fields.append("Content-Type: message/rfc822")
        body = [*rng.sample(_HEADS, rng.randrange(0, 4)), *_entity(rng, depth + 1)]
        if rng.random() < 0.8:
            body.insert(0, "MIME-Version: 1.0")
    else:
        if rng.random() < 0.8:
            few = _TYPES[:4] if rng.random() < 0.8 else _TYPES
            fields.append(f"Content-Type: {rng.choice(few)}")
        body = [rng.choice(_LINES) for _ in range(rng.randrange(0, 5))]
    rng.shuffle(fields)
    return [*fields, *([""] if rng.random() < 0.97 else []), *body]


def _multipart(rng: random.Random, depth: int) -> tuple[str, list[str]]:
    """Return a boundary parameter and the lines of the body."""
    # One that begins like the outer one is legal, and often got wrong.
    boundary = rng.choice(
        (f"b{depth}", f"b{depth}", "b", "b0", "b 1", "a'()+_,-./:=?z")
    )
    quoted = f'"{boundary}"' if rng.random() < 0.8 or len(boundary) > 2 else boundary
    lines = ["preamble"] if rng.random() < 0.3 else []
    for _ in range(rng.randrange(0, 4)):
        lines.append(f"--{boundary}{rng.choice(('', '', '', ' ', chr(9), 'x'))}")
        lines += _entity(rng, depth + 1)
    match rng.randrange(6):
        case 0:
            pass  # it just ends
        case 1:
            lines += [f"--{boundary}--", "epilogue", f"--{boundary}", "", "late"]
        case _:
            lines.append(f"--{boundary}--")
    return quoted, lines
