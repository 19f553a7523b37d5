// The pages on which people sign in, prove an address, choose a new password and accept an invitation.
// A page holds its views; this script shows one of them at a time, sends its form as JSON and says what the server answered.
"use strict";

(() => {
  const page = document.body.dataset.page;
  const element = (id) => document.getElementById(id);

  // The token stands behind `#`, so no server and no proxy sees it. It leaves the address bar before anything else happens, so
  // that it is neither in the history nor in a screenshot.
  const token = location.hash.slice(1);
  if (location.hash) history.replaceState(null, "", location.pathname);

  // What comes after signing in: the page of an invitation goes on with it.
  let afterSignIn = showSignedIn;

  /** Sends a request to the API: the status, the JSON of the answer, and the seconds to wait if it was refused for now. */
  async function send(method, path, body) {
    // The mode is left alone: in `same-origin` mode and without a referrer, browsers would send `Origin: null`.
    const options = { method, credentials: "same-origin", cache: "no-store", headers: {} };
    if (body !== undefined) {
      options.headers["Content-Type"] = "application/json";
      options.body = JSON.stringify(body);
    }
    try {
      const answer = await fetch(path, options);
      const text = await answer.text();
      let json = {};
      try { json = text ? JSON.parse(text) : {}; } catch { /* A proxy's own page: the status says enough. */ }
      return { status: answer.status, ok: answer.ok, json, waitSeconds: answer.headers.get("Retry-After") };
    } catch {
      return { status: 0, ok: false, json: { error: "The server can't be reached. Try again." }, waitSeconds: null };
    }
  }

  function clearErrors() {
    element("alert").hidden = true;
    for (const error of document.querySelectorAll("p.error")) error.remove();
    for (const input of document.querySelectorAll("[aria-invalid]")) {
      input.removeAttribute("aria-invalid");
      const described = input.dataset.describedBefore;
      if (described) input.setAttribute("aria-describedby", described);
      else input.removeAttribute("aria-describedby");
    }
  }

  /** Shows a view and moves the focus into it: to its first field, or to its heading. */
  function show(id) {
    clearErrors();
    for (const view of document.querySelectorAll("main > section")) view.hidden = view.id !== id;
    const heading = element(id).querySelector("h1");
    document.title = `${heading.textContent} · AgentLens`;
    const first = element(id).querySelector("input");
    (first ?? heading).focus();
  }

  /** Says what happened, and where to go on. */
  function notice(heading, text, { isInLog = false, next = null } = {}) {
    element("notice").querySelector("h1").textContent = heading;
    element("notice-text").textContent = text;
    element("notice-log").hidden = !isInLog;
    element("notice-next").hidden = next === null;
    if (next) {
      const link = element("notice-next").querySelector("a");
      [link.textContent, link.href] = next;
    }
    show("notice");
  }

  function fieldError(input, text) {
    const error = document.createElement("p");
    error.className = "error";
    error.id = `${input.id || input.name}-error`;
    error.textContent = text;
    (input.closest("label.check") ?? input).after(error);
    const described = input.getAttribute("aria-describedby") ?? "";
    input.dataset.describedBefore = described;
    input.setAttribute("aria-describedby", `${error.id} ${described}`.trim());
    input.setAttribute("aria-invalid", "true");
    input.focus();
  }

  /** Texts of the server as sentences of their own. */
  function sentences(...texts) {
    const present = texts.filter(Boolean).map((text) => text[0].toUpperCase() + text.slice(1));
    return present.map((text) => (/[.?!]$/.test(text) ? text : `${text}.`)).join(" ");
  }

  /** Says why the server refused: at the field if it names one, otherwise above the form. */
  function refused(answer, form) {
    const { error, details, hint } = answer.json;
    const detail = details?.[0];
    const input = detail && form?.elements.namedItem(detail.path);
    if (input) return fieldError(input, sentences(detail.message));
    const wait = answer.waitSeconds && `Try again in ${answer.waitSeconds} seconds.`;
    element("alert-text").textContent = sentences(error ?? `The server answered ${answer.status}.`, wait);
    element("alert-hint").textContent = sentences(hint);
    element("alert-hint").hidden = !hint;
    element("alert").hidden = false;
    element("alert").focus();
  }

  /** The fields of a form, or `null` after saying what is wrong with the first bad one. */
  function fieldsOf(form) {
    for (const input of form.elements) {
      if (input.willValidate && !input.checkValidity()) {
        fieldError(input, input.validationMessage);
        return null;
      }
    }
    return Object.fromEntries(new FormData(form));
  }

  /** What a view's form does: `act` gets the fields and the form. A second click while it runs does nothing. */
  function onSubmit(view, act) {
    const form = element(view)?.querySelector("form");
    form?.addEventListener("submit", async (event) => {
      event.preventDefault();
      clearErrors();
      const fields = fieldsOf(form);
      const button = form.querySelector("button");
      if (!fields || button.disabled) return;
      button.disabled = true;
      try {
        await act(fields, form);
      } finally {
        button.disabled = false;
      }
    });
  }

  function forgetSecrets() {
    for (const input of document.querySelectorAll('input[type="password"], #code-code')) input.value = "";
  }

  async function showSignedIn() {
    forgetSecrets();
    const me = await send("GET", "/v1/me");
    if (!me.ok) return show("sign-in");
    element("signed-in-who").textContent = `${me.json.name || me.json.email} (${me.json.email})`;
    const lines = me.json.orgs.map((org) => `${org.name}: ${org.role}`);
    if (lines.length === 0) lines.push("You belong to no org yet.");
    const items = lines.map((line) => {
      const item = document.createElement("li");
      item.textContent = line;
      return item;
    });
    element("signed-in-orgs").replaceChildren(...items);
    show("signed-in");
  }

  async function signOut() {
    const answer = await send("POST", "/v1/sign-out");
    if (answer.ok || answer.status === 401) show("sign-in");
    else refused(answer);
  }

  onSubmit("sign-in", async (fields, form) => {
    const answer = await send("POST", "/v1/sign-in", fields);
    if (!answer.ok) return refused(answer, form);
    forgetSecrets();
    if (answer.json.needs_code) show("code");
    else await afterSignIn();
  });

  onSubmit("code", async (fields, form) => {
    const answer = await send("POST", "/v1/sign-in/code", fields);
    if (answer.ok) {
      forgetSecrets();
      return afterSignIn();
    }
    if (answer.json.code === "sign_in_expired") show("sign-in");
    refused(answer, form);
  });

  onSubmit("forgotten", async (fields, form) => {
    const answer = await send("POST", "/v1/password/forgotten", fields);
    if (!answer.ok) return refused(answer, form);
    notice("Look into your mail", sentences(answer.json.message), { isInLog: answer.json.link_is_in_log });
  });

  onSubmit("sign-up", async (fields, form) => {
    const answer = await send("POST", "/v1/sign-up", fields);
    if (!answer.ok) return refused(answer, form);
    forgetSecrets();
    notice("Look into your mail", sentences(answer.json.message), { isInLog: answer.json.link_is_in_log });
  });

  onSubmit("verify", async (fields, form) => {
    const answer = await send("POST", "/v1/verify", { token, ...fields });
    if (!answer.ok) return refused(answer, form);
    await showSignedIn();
  });

  onSubmit("reset", async (fields, form) => {
    const answer = await send("POST", "/v1/password/reset", { token, ...fields });
    if (!answer.ok) return refused(answer, form);
    forgetSecrets();
    notice("Your password is set", "All your sessions have ended.", { next: ["Sign in", "/login"] });
  });

  onSubmit("join", async (fields, form) => {
    const answer = await send("POST", "/v1/invitations/join", { token, ...fields });
    if (answer.ok) return showSignedIn();
    if (answer.json.code === "account_exists") show("sign-in");
    refused(answer, form);
  });

  onSubmit("accept", async () => {
    const answer = await send("POST", "/v1/invitations/accept", { token });
    if (!answer.ok) return refused(answer);
    afterSignIn = showSignedIn;
    await showSignedIn();
  });

  onSubmit("signed-in", signOut);

  /** Shows an invitation, to who is signed in or to whom it may make an account. */
  async function showInvitation() {
    const answer = await send("POST", "/v1/invitations/look", { token });
    if (!answer.ok) {
      const { error, hint } = answer.json;
      return notice("This link leads to no open invitation", sentences(error, hint));
    }
    const { org, role, email, expires_at } = answer.json;
    const until = new Date(expires_at).toLocaleString(undefined, { dateStyle: "long", timeStyle: "short" });
    for (const line of document.querySelectorAll(".invitation")) {
      line.textContent = `${email} is invited to ${org} as ${role}, until ${until}.`;
    }
    afterSignIn = showAccept;
    const me = await send("GET", "/v1/me");
    if (me.ok) showAcceptAs(me.json);
    else show("join");
  }

  async function showAccept() {
    const me = await send("GET", "/v1/me");
    if (me.ok) showAcceptAs(me.json);
    else refused(me);
  }

  function showAcceptAs(me) {
    element("accept-who").textContent = `You are signed in as ${me.email}.`;
    show("accept");
  }

  for (const link of document.querySelectorAll("[data-show]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      show(link.dataset.show);
    });
  }
  document.querySelector("[data-sign-out]")?.addEventListener("click", (event) => {
    event.preventDefault();
    signOut();
  });

  // Where a sign-in through a provider led, as the server says it behind `#`.
  const outcomes = {
    link_required: "This address has an account. Sign in with your password; the provider can be added to the account then",
    address_unverified: "The provider has not verified your address",
    sign_up_closed: "People come to this server by invitation only",
    sign_up_stopped: "This server takes no new sign-ups now",
    address_refused: "Addresses of this domain can't sign up here",
    terms_required: "This server has terms that must be accepted: sign up with your address",
    too_many_attempts: "Too many codes were tried. Try again later",
    sign_in_cancelled: "The sign-in was cancelled at the provider",
  };

  function showOutcome(code) {
    if (code === "code_required") return show("code");
    show("sign-in");
    const error = Object.hasOwn(outcomes, code) ? outcomes[code] : "The sign-in through the provider failed. Begin again";
    refused({ json: { error } });
  }

  /** Offers the providers that this server knows, below the form for signing in. */
  async function offerProviders() {
    const info = await send("GET", "/api/server-info");
    const names = { google: "Google", github: "GitHub" };
    for (const provider of info.json.sign_in_providers ?? []) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = `Sign in with ${names[provider] ?? provider}`;
      button.addEventListener("click", async () => {
        clearErrors();
        const answer = await send("POST", `/v1/sign-in/${provider}`, {});
        if (answer.ok) location.assign(answer.json.url);
        else refused(answer);
      });
      element("sign-in").append(button);
    }
  }

  function begin() {
    // Forms of another address than the public one are refused, so say where this page works.
    const origin = document.body.dataset.origin;
    if (location.origin !== origin) {
      const address = `${origin}${location.pathname}`;
      const next = [address, token ? `${address}#${token}` : address];
      return notice("This page has another address", "Go on at the public address of this server:", { next });
    }
    if (page === "login") {
      offerProviders();
      return token ? showOutcome(token) : showSignedIn();
    }
    if (!token) {
      return notice("The link is not whole", "Open it once more from your mail, or copy all of it.", { next: ["Sign in", "/login"] });
    }
    return page === "invite" ? showInvitation() : show(page);
  }

  begin();
})();
