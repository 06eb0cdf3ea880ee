// What the test makes Thunderbird do: each function is one thing a person does.
// Evaluated in Thunderbird's own process; `run` names the function and its values.
const { MailServices } = ChromeUtils.importESModule(
  "resource:///modules/MailServices.sys.mjs"
);
const { MessageSend } = ChromeUtils.importESModule(
  "resource:///modules/MessageSend.sys.mjs"
);
const { setTimeout } = ChromeUtils.importESModule(
  "resource://gre/modules/Timer.sys.mjs"
);

const Flags = Ci.nsMsgFolderFlags;
const KEPT = Ci.nsMsgMessageFlags.Offline;
const SPECIAL = {
  Inbox: Flags.Inbox,
  Drafts: Flags.Drafts,
  Sent: Flags.SentMail,
  Trash: Flags.Trash,
  Junk: Flags.Junk,
  Archive: Flags.Archive,
};

function copyListener() {
  const listener = {
    QueryInterface: ChromeUtils.generateQI(["nsIMsgCopyServiceListener"]),
    onStartCopy() {},
    onProgress() {},
    setMessageKey() {},
    getMessageId() {
      return null;
    },
  };
  listener.promise = new Promise((resolve, reject) => {
    listener.onStopCopy = status =>
      Components.isSuccessCode(status)
        ? resolve()
        : reject(new Error(`copy failed: 0x${status.toString(16)}`));
  });
  return listener;
}

async function until(what, condition, seconds = 20) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const value = condition();
    if (value) {
      return value;
    }
    if (Date.now() > end) {
      throw new Error(`never came: ${what}`);
    }
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

const imapServer = () =>
  MailServices.accounts.allServers.find(server => server.type == "imap");

function folderOf(name) {
  const root = imapServer().rootFolder;
  return SPECIAL[name]
    ? root.getFolderWithFlags(SPECIAL[name])
    : root.descendants.find(folder => folder.name == name);
}

// As when a person clicks the folder, again and again until what is awaited shows.
async function untilUpdated(what, folder, condition) {
  for (let click = 0; click < 10; click++) {
    folder().updateFolder(null);
    try {
      return await until(what, condition, 3);
    } catch (error) {
      console.log(error);
    }
  }
  throw new Error(`never came: ${what}`);
}

const header = (folder, subject) =>
  [...folder.messages].find(message => message.mime2DecodedSubject == subject);

async function streamed(folder, subject, convert) {
  const where = folderOf(folder);
  const uri = where.getUriForMsg(header(where, subject));
  let text = "";
  await new Promise((resolve, reject) => {
    const listener = {
      QueryInterface: ChromeUtils.generateQI(["nsIStreamListener"]),
      onStartRequest() {},
      onDataAvailable(request, stream, offset, count) {
        const input = Cc["@mozilla.org/binaryinputstream;1"].createInstance(
          Ci.nsIBinaryInputStream
        );
        input.setInputStream(stream);
        text += input.readBytes(count);
      },
      onStopRequest(request, status) {
        Components.isSuccessCode(status)
          ? resolve()
          : reject(new Error(`stream failed: 0x${status.toString(16)}`));
      },
    };
    MailServices.messageServiceFromURI(uri).streamMessage(
      uri, listener, null, null, convert, "", false
    );
  });
  return text;
}

const actions = {
  // The account, as the account manager makes it from what a person types in.
  async setUp({ host, imap, smtp, socketType, address, login, password, ca }) {
    if (ca) {
      Cc["@mozilla.org/security/x509certdb;1"]
        .getService(Ci.nsIX509CertDB)
        .addCertFromBase64(ca, "CTu,CTu,CTu");
    }
    const server = MailServices.accounts.createIncomingServer(login, host, "imap");
    server.port = imap;
    server.socketType = socketType;
    server.authMethod = Ci.nsMsgAuthMethod.passwordCleartext;
    server.password = password;
    const outgoing = MailServices.outgoingServer.createServer("smtp");
    outgoing.QueryInterface(Ci.nsISmtpServer);
    outgoing.hostname = host;
    outgoing.port = smtp;
    outgoing.socketType = socketType;
    outgoing.authMethod = Ci.nsMsgAuthMethod.passwordCleartext;
    outgoing.username = login;
    outgoing.password = password;
    const identity = MailServices.accounts.createIdentity();
    identity.email = address;
    identity.fullName = "Anna";
    identity.composeHtml = false;
    identity.smtpServerKey = outgoing.key;
    const account = MailServices.accounts.createAccount();
    account.addIdentity(identity);
    account.incomingServer = server;
    MailServices.accounts.defaultAccount = account;
    server.performExpand(null);
    await until("Inbox", () => folderOf("Inbox"));
  },

  // After a new start: the password is not kept in the profile.
  logIn({ password }) {
    imapServer().password = password;
  },

  quit() {
    setTimeout(() => Services.startup.quit(Ci.nsIAppStartup.eForceQuit), 100);
  },

  // As the menu does, again and again until all that is there is kept: on a busy
  // machine one round was seen to pass a message over.
  async download({ folder }) {
    const where = folderOf(folder);
    where.setFlag(Flags.Offline);
    const kept = () =>
      [...where.messages].every(message => message.flags & KEPT);
    for (let asked = 0; asked < 10 && !kept(); asked++) {
      await new Promise(resolve =>
        where.downloadAllForOffline(
          {
            QueryInterface: ChromeUtils.generateQI(["nsIUrlListener"]),
            OnStartRunningUrl() {},
            OnStopRunningUrl: resolve,
          },
          null
        )
      );
      await until("all kept", kept, 3).catch(console.log);
    }
    await until("all kept", kept, 0);
    where.msgDatabase.commit(Ci.nsMsgDBCommitType.kLargeCommit);
  },

  folders() {
    return imapServer()
      .rootFolder.descendants.filter(
        folder => !(folder.flags & Flags.Virtual)
      )
      .map(folder => folder.onlineName || folder.name);
  },

  special() {
    return Object.fromEntries(
      Object.keys(SPECIAL).map(name => [name, folderOf(name)?.name ?? null])
    );
  },

  async createFolder({ name }) {
    imapServer().rootFolder.createSubfolder(name, null);
    await until(name, () => folderOf(name));
  },

  async waitFor({ folder, subject, push }) {
    const found = () => header(folderOf(folder), subject);
    const message = push
      ? await until(subject, found)
      : await untilUpdated(subject, () => folderOf(folder), found);
    return {
      author: message.mime2DecodedAuthor,
      read: message.isRead,
      flagged: message.isFlagged,
      tags: message.getStringProperty("keywords"),
      size: message.messageSize,
    };
  },

  async gone({ folder, subject }) {
    await untilUpdated(
      `${subject} gone`,
      () => folderOf(folder),
      () => !header(folderOf(folder), subject)
    );
  },

  async source({ folder, subject }) {
    const text = await streamed(folder, subject, false);
    return { length: text.length, start: text.slice(0, 2000), end: text.slice(-200) };
  },

  // What the message pane has: HTML, as Thunderbird makes it of the message.
  async shown({ folder, subject }) {
    const message = header(folderOf(folder), subject);
    const last = message.numReferences - 1;
    return {
      html: await streamed(folder, subject, true),
      answers: last < 0 ? null : message.getStringReference(last),
    };
  },

  messageId: ({ folder, subject }) => header(folderOf(folder), subject).messageId,

  read({ folder, subject }) {
    const where = folderOf(folder);
    where.markMessagesRead([header(where, subject)], true);
  },

  star({ folder, subject }) {
    const where = folderOf(folder);
    where.markMessagesFlagged([header(where, subject)], true);
  },

  tag({ folder, subject, keyword }) {
    const where = folderOf(folder);
    where.addKeywordsToMessages([header(where, subject)], keyword);
  },

  async move({ folder, subject, to }) {
    const where = folderOf(folder);
    const listener = copyListener();
    MailServices.copy.copyMessages(
      where, [header(where, subject)], folderOf(to), true, listener, null, false
    );
    await listener.promise;
  },

  async remove({ folder, subject }) {
    const where = folderOf(folder);
    const listener = copyListener();
    where.deleteMessages([header(where, subject)], null, false, false, listener, false);
    await listener.promise;
  },

  // Search on the server, as the search dialogue does.
  async search({ folder, text }) {
    const session = Cc["@mozilla.org/messenger/searchSession;1"].createInstance(
      Ci.nsIMsgSearchSession
    );
    session.addScopeTerm(Ci.nsMsgSearchScope.onlineMail, folderOf(folder));
    const term = session.createTerm();
    const value = term.value;
    value.attrib = Ci.nsMsgSearchAttrib.Body;
    value.str = text;
    term.value = value;
    term.attrib = Ci.nsMsgSearchAttrib.Body;
    term.op = Ci.nsMsgSearchOp.Contains;
    session.appendTerm(term);
    const hits = [];
    await new Promise(resolve => {
      session.registerListener(
        {
          onSearchHit: message => hits.push(message.mime2DecodedSubject),
          onSearchDone: resolve,
          onNewSearch() {},
        },
        Ci.nsIMsgSearchSession.allNotifications
      );
      session.search(null);
    });
    return hits;
  },

  async send({ to, subject, body }) {
    await until("Sent", () => folderOf("Sent"));
    const account = MailServices.accounts.defaultAccount;
    const fields = Cc["@mozilla.org/messengercompose/composefields;1"].createInstance(
      Ci.nsIMsgCompFields
    );
    fields.from = account.defaultIdentity.email;
    fields.to = to;
    fields.subject = subject;
    await new Promise((resolve, reject) => {
      const ended = status =>
        Components.isSuccessCode(status)
          ? resolve()
          : reject(new Error(`send failed: 0x${status.toString(16)}`));
      const listener = {
        QueryInterface: ChromeUtils.generateQI(["nsIMsgSendListener"]),
        onStartSending() {},
        onSendProgress() {},
        onStatus() {},
        onStopSending: (id, status) => ended(status),
        onGetDraftFolderURI() {},
        onSendNotPerformed: (id, status) => ended(status || Cr.NS_ERROR_FAILURE),
        onTransportSecurityError: (id, status) => ended(status),
      };
      new MessageSend()
        .createAndSendMessage(
          null, account.defaultIdentity, account.key, fields, false, false,
          Ci.nsIMsgCompDeliverMode.Now, null, "text/plain", body, null, null,
          listener, "", null, Ci.nsIMsgCompType.New
        )
        .catch(reject);
    });
  },
};

const run = (name, values) => Promise.resolve(actions[name](values ?? {}));
