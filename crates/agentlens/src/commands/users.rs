//! `agentlens user`: people, for the operator of the server.

use serde_json::json;

use agentlens_domain::ids::UserId;
use agentlens_domain::passwords;
use agentlens_domain::people::email::EmailAddress;
use agentlens_domain::people::names::{Name, NameOf};
use agentlens_domain::permissions::{Caller, Role};
use agentlens_domain::time::format_rfc3339;
use agentlens_store::{NewPerson, PersonRow, Store, StoreError};

use crate::boot::{find_org, open_store};
use crate::config::{Common, UserCommand};
use crate::output;

/// People that are read at a time.
const PAGE: u32 = 1_000;

/// Runs a command on people.
pub(crate) async fn run(command: UserCommand, common: &Common) -> Result<(), String> {
    let store = open_store(&common.store).await?;
    match command {
        UserCommand::Create { email, name, org, role } => {
            create(&store, &email, name.as_deref(), &org, &role, common).await
        }
        UserCommand::List => list(&store, common).await,
        UserCommand::ResetPassword { email } => reset_password(&store, &email, common).await,
        UserCommand::Disable { email } => set_disabled(&store, &email, true, common).await,
        UserCommand::Enable { email } => set_disabled(&store, &email, false, common).await,
    }
}

async fn create(
    store: &Store,
    email: &str,
    name: Option<&str>,
    org: &str,
    role: &str,
    common: &Common,
) -> Result<(), String> {
    let email = read_email(email)?;
    let name = match name {
        Some(name) => Name::parse(NameOf::Person, name).map_err(|error| format!("--name: {error}"))?,
        None => Name::parse(NameOf::Person, email.as_str().split('@').next().unwrap_or_default())
            .map_err(|error| format!("--name: {error}"))?,
    };
    let role = Role::parse(role)
        .ok_or_else(|| format!("--role: {role:?} must be owner, admin, auditor, member or viewer"))?;
    let org = find_org(store, org).await?;
    let password = passwords::random();
    let person = NewPerson {
        user_id: UserId::random(),
        email: email.as_str().to_owned(),
        email_key: email.key().to_owned(),
        name: name.as_str().to_owned(),
        password_hash: Some(passwords::hash(&password).map_err(|error| error.to_string())?),
        terms_version: None,
    };
    let user_id = person.user_id.clone();
    let made = store.control().create_member(&Caller::service("cli", &org), person, role).await;
    made.map_err(|error| match error {
        StoreError::Exists(_) => {
            format!("{} has an account; an invitation brings it into another org", email.as_str())
        }
        error => error.to_string(),
    })?;
    show_login(&user_id, &email, &password, common);
    Ok(())
}

fn show_login(user_id: &UserId, email: &EmailAddress, password: &str, common: &Common) {
    if common.json {
        output::json(&json!({ "user_id": user_id, "email": email.as_str(), "password": password }));
    } else {
        output::line(&format!(
            "User      {user_id}\nLogin     {} / {password}\nThe password is shown this once.",
            email.as_str()
        ));
    }
}

async fn list(store: &Store, common: &Common) -> Result<(), String> {
    let mut people: Vec<PersonRow> = Vec::new();
    loop {
        let after = people.last().map(|person| person.email_key.clone()).unwrap_or_default();
        let page = store.control().list_people(&after, PAGE).await.map_err(|error| error.to_string())?;
        if page.is_empty() {
            break;
        }
        people.extend(page);
    }
    if common.json {
        let all: Vec<_> = people.iter().map(as_json).collect();
        output::json(&json!({ "users": all }));
        return Ok(());
    }
    let mut table = output::Table::new(&["USER", "EMAIL", "NAME", "STATE", "SECOND FACTOR", "MADE"]);
    for person in people {
        table.row([
            person.user_id,
            person.email,
            person.name,
            if person.disabled_us.is_some() { "disabled" } else { "active" }.to_owned(),
            if person.has_second_factor { "yes" } else { "no" }.to_owned(),
            format_rfc3339(person.created_us),
        ]);
    }
    table.print();
    Ok(())
}

fn as_json(person: &PersonRow) -> serde_json::Value {
    json!({
        "user_id": person.user_id, "email": person.email, "name": person.name,
        "is_disabled": person.disabled_us.is_some(), "has_second_factor": person.has_second_factor,
        "created_at": format_rfc3339(person.created_us),
    })
}

async fn reset_password(store: &Store, email: &str, common: &Common) -> Result<(), String> {
    let email = read_email(email)?;
    let user = find(store, &email).await?;
    let password = passwords::random();
    let hash = passwords::hash(&password).map_err(|error| error.to_string())?;
    let caller = Caller::service_on("cli", &user);
    store.control().set_password(&caller, hash, None, None).await.map_err(|error| match error {
        StoreError::NotFound => {
            format!("{} is disabled; `agentlens user enable` comes first", email.as_str())
        }
        error => error.to_string(),
    })?;
    show_login(&user, &email, &password, common);
    Ok(())
}

async fn set_disabled(store: &Store, email: &str, is_disabled: bool, common: &Common) -> Result<(), String> {
    let email = read_email(email)?;
    let user = find(store, &email).await?;
    let set = store.control().set_disabled(&Caller::service_on("cli", &user), is_disabled).await;
    set.map_err(|error| error.to_string())?;
    if common.json {
        output::json(&json!({ "user_id": user, "is_disabled": is_disabled }));
    } else {
        let state = if is_disabled { "disabled; all sessions have ended" } else { "enabled" };
        output::line(&format!("{} is {state}", email.as_str()));
    }
    Ok(())
}

fn read_email(text: &str) -> Result<EmailAddress, String> {
    EmailAddress::parse(text).map_err(|error| error.to_string())
}

async fn find(store: &Store, email: &EmailAddress) -> Result<UserId, String> {
    let person = store.control().find_person_by_email(email.key()).await;
    let person = person.map_err(|error| error.to_string())?;
    let id = person.and_then(|person| UserId::parse(&person.user_id).ok());
    id.ok_or_else(|| format!("nobody has the address {}; `agentlens user list` shows all", email.as_str()))
}
