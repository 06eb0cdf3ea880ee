"""One parcel on its way to other servers: its envelope, and its answers. Pure."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from mailsrv.queue.carrying import Parcel
from mailsrv.queue.values import Answer
from mailsrv.smtp.outgoing import Done, Outgoing, OutgoingRecipient
from mailsrv.smtp.reply import Reply

# What a peer lacks that the message needs; for good, if no other host has it.
_LACKING = {
    "8BITMIME": Reply(554, "5.6.3", "The other server takes 7-bit mail only"),
    "SMTPUTF8": Reply(553, "5.6.7", "The other server takes no such addresses"),
    "REQUIRETLS": Reply(550, "5.7.30", "The other server does not offer REQUIRETLS"),
    "SIZE": Reply(552, "5.3.4", "The message is too big for the other server"),
}


@dataclass(frozen=True, slots=True)
class NotHere:
    """A host that did not take the message; another one may."""

    reply: Reply
    peer: str = ""  # who has said it; empty: nobody
    tls: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The envelope of a parcel, and its answers."""

    parcel: Parcel
    now: Callable[[], float]

    def outgoing(self) -> Outgoing:
        parcel, message = self.parcel, self.parcel.message
        paths = [parcel.reverse_path, *(r.forward_path for r in parcel.recipients)]
        return Outgoing(
            parcel.reverse_path,
            tuple(
                OutgoingRecipient(r.forward_path, r.notify, r.orcpt)
                for r in parcel.recipients
            ),
            parcel.content.octets(parcel.recipients[0]),
            message.eight_bit,
            message.smtputf8 or not all(map(str.isascii, paths)),
            message.ret,
            message.envid,
            message.require_tls,
        )

    def pieces(self) -> AsyncIterator[bytes]:
        return self.parcel.content.pieces(self.parcel.recipients[0])

    def answered(
        self, done: Done, peer: str, tls: str, *, takes_dsn: bool
    ) -> tuple[Answer, ...] | NotHere:
        """Say what a transaction came to.

        RFC 5321 section 4.3.2: a 5yz to MAIL is final; after any other failure
        before a recipient was named, the next host is asked.
        """
        if not done.begun and done.replies[0].code < 500:
            return NotHere(done.replies[0], peer, tls)
        return tuple(
            self._answer(reply, peer, tls, relayed=not takes_dsn)
            for reply in done.replies
        )

    def lacking(self, extension: str, peer: str, tls: str) -> NotHere:
        return NotHere(_LACKING[extension], peer, tls)

    def all(self, why: NotHere) -> tuple[Answer, ...]:
        """Give all recipients one answer."""
        answer = self._answer(why.reply, why.peer, why.tls)
        return (answer,) * len(self.parcel.recipients)

    def _answer(
        self, reply: Reply, peer: str, tls: str, *, relayed: bool = False
    ) -> Answer:
        return Answer(
            reply.code,
            reply.enhanced_code or f"{reply.code // 100}.0.0",
            " ".join(reply.text.split()),
            self.now(),
            peer,
            tls,
            relayed,
        )


def for_now(reply: Reply) -> Reply:
    """Return a refusal of the connection, which is never for good.

    RFC 5321 section 3.1: a 554 greeting says that there is no mail service here now.
    """
    if reply.code < 500:
        return reply
    return Reply(450, f"4{(reply.enhanced_code or '5.3.2')[1:]}", reply.text)
