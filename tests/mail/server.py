"""An SMTP server on loopback that keeps what it gets: each mail becomes a line of JSON in a file, before it is answered.

It prints its port when it is ready, and ends when its standard input is closed, so that it never outlives the test.

The first part of an address decides what happens to a mail:
    reply-450@...    as recipient or sender: the command is answered with this code
    content-554@...  as recipient: the mail itself is answered with this code, quoting the mail's first link
    stall@...        as recipient: there is no answer
"""

import argparse
import asyncio
import json
import logging
import re
import ssl
import sys
import warnings
from email import policy
from email.parser import BytesParser
from pathlib import Path

from aiosmtpd.smtp import SMTP, AuthResult


def code_of(address, kind):
    found = re.match(rf"{kind}-(\d{{3}})@", address or "")
    return found and found.group(1)


class Keeper:
    def __init__(self, output):
        self.output = output

    async def handle_MAIL(self, server, session, envelope, address, options):
        if code := code_of(address, "reply"):
            return f"{code} the sender is not welcome"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(self, server, session, envelope, address, options):
        if code := code_of(address, "reply"):
            return f"{code} the recipient is not welcome"
        if address.startswith("stall@"):
            await asyncio.sleep(3600)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = describe(server, session, envelope)
        for address in envelope.rcpt_tos:
            if code := code_of(address, "content"):
                link = re.search(r"https?://\S+", mail["text"] or "")
                return f"{code} the mail is not welcome: {link and link.group()}"
        with self.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(mail) + "\n")
        return "250 kept"


def describe(server, session, envelope):
    raw = envelope.original_content
    mail = BytesParser(policy=policy.default).parsebytes(raw)

    def part(kind):
        found = mail.get_body(preferencelist=(kind,))
        return found and found.get_content().replace("\r\n", "\n")

    return {
        "from": envelope.mail_from,
        "to": envelope.rcpt_tos,
        "hello": session.host_name,
        "user": session.auth_data.decode() if session.auth_data else None,
        "encrypted": server.transport.get_extra_info("ssl_object") is not None,
        "headers": [[name, str(value)] for name, value in mail.items()],
        "text": part("plain"),
        "html": part("html"),
        "raw": raw.decode("latin-1"),
    }


def certificates(directory):
    """Makes a certificate for localhost, and the authority that clients have to trust: authority.pem in the directory."""
    # Takes long to load, and most tests need none.
    import trustme

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "authority.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


def authenticator(login):
    user, password = login.split(":", 1)

    def authenticate(server, session, envelope, mechanism, data):
        is_right = (data.login.decode(), data.password.decode()) == (user, password)
        return AuthResult(success=is_right, handled=is_right, auth_data=data.login)

    return authenticate


async def serve(options):
    keeper = Keeper(options.directory / "mails.jsonl")
    context = None if options.tls == "none" else certificates(options.directory)
    settings = {"hostname": "mail.test", "auth_require_tls": False}
    if options.login:
        settings |= {"authenticator": authenticator(options.login), "auth_required": True}
    if options.tls == "starttls":
        settings |= {"tls_context": context, "require_starttls": True}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(keeper, loop=loop, **settings),
        "127.0.0.1",
        0,
        ssl=context if options.tls == "always" else None,
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    # It is told to take passwords without encryption, and says so each time.
    warnings.simplefilter("ignore")
    logging.getLogger("mail.log").setLevel(logging.ERROR)
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("directory", type=Path, help="where mails.jsonl and authority.pem go")
    arguments.add_argument("--login", metavar="USER:PASSWORD", help="refuse whoever doesn't sign in so")
    arguments.add_argument("--tls", choices=["none", "starttls", "always"], default="none")
    asyncio.run(serve(arguments.parse_args()))
