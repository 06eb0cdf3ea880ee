// What a program with imapflow does; ends with "all done" or an error.
const assert = require("assert");
const { ImapFlow } = require("imapflow");

const { port, ca, user, pass } = JSON.parse(process.argv[2]);
const connect = async () => {
  const client = new ImapFlow({
    host: "localhost", port, secure: true, tls: { ca }, auth: { user, pass },
    logger: false, qresync: true,
  });
  await client.connect();
  return client;
};
const mail = n =>
  `From: x@other.test\r\nTo: anna@example.test\r\nSubject: mail ${n}\r\n` +
  `Message-ID: <${n}@other.test>\r\nMIME-Version: 1.0\r\n` +
  `Content-Type: multipart/mixed; boundary=b\r\n\r\n` +
  `--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGr\u00fc\u00dfe ${n}\r\n` +
  `--b\r\nContent-Type: application/octet-stream\r\n` +
  `Content-Transfer-Encoding: base64\r\n\r\nAAECAw==\r\n--b--\r\n`;

(async () => {
  const client = await connect();
  const uses = (await client.list()).map(box => box.specialUse);
  for (const use of ["\\Inbox", "\\Sent", "\\Drafts", "\\Trash", "\\Junk"]) {
    assert(uses.includes(use), use);
  }
  await client.mailboxCreate("K\u00fcche & Co/Sub");
  for (let n = 1; n <= 5; n++) {
    const done = await client.append("INBOX", Buffer.from(mail(n)), ["\\Seen", "Work"]);
    assert.strictEqual(done.uid, n);
  }
  const lock = await client.getMailboxLock("INBOX");
  const other = await connect();
  const otherLock = await other.getMailboxLock("INBOX");
  try {
    assert.strictEqual(client.mailbox.exists, 5);
    let count = 0;
    for await (const message of client.fetch("1:*", {
      uid: true, flags: true, envelope: true, bodyStructure: true, source: true,
      internalDate: true, size: true, labels: true, threadId: true,
    })) {
      count++;
      assert.strictEqual(message.source.toString(), mail(count));
      assert.strictEqual(message.envelope.subject, `mail ${count}`);
      assert.strictEqual(message.bodyStructure.childNodes.length, 2);
      assert(message.flags.has("Work") && message.flags.has("\\Seen"));
    }
    assert.strictEqual(count, 5);
    const { content } = await client.download("2", "2");
    const octets = [];
    for await (const chunk of content) octets.push(chunk);
    assert.deepStrictEqual(Buffer.concat(octets), Buffer.from([0, 1, 2, 3]));
    assert.deepStrictEqual(await client.search({ subject: "mail 3" }), [3]);
    assert.deepStrictEqual(await client.search({ body: "Gr\u00fc\u00dfe 4" }), [4]);
    const told = new Promise(resolve => other.once("flags", resolve));
    await client.messageFlagsAdd("1", ["\\Flagged", "$label1"]);
    await other.noop();
    const news = await told;
    assert(news.flags.has("\\Flagged") && news.flags.has("$label1"));
    const gone = new Promise(resolve => other.once("expunge", resolve));
    await client.messageDelete("5");
    await other.noop();
    await gone;
    const moved = await client.messageMove("1:2", "K\u00fcche & Co/Sub");
    assert.strictEqual(moved.uidMap.size, 2);
    const copied = await client.messageCopy("1", "Archive");
    assert.strictEqual(copied.uidMap.size, 1);
    const exists = new Promise(resolve => other.once("exists", resolve));
    const idle = other.idle();
    await client.append("INBOX", Buffer.from(mail(6)));
    assert.strictEqual((await exists).count, 3);
    await other.noop();
    await idle;
  } finally {
    lock.release();
    otherLock.release();
  }
  const status = await client.status("K\u00fcche & Co/Sub", { messages: true, uidNext: true });
  assert.strictEqual(status.messages, 2);
  await client.mailboxRename("K\u00fcche & Co/Sub", "Sub");
  await client.mailboxDelete("Sub");
  await other.logout();
  await client.logout();
  console.log("all done");
})().catch(error => {
  console.error(error);
  process.exit(1);
});
