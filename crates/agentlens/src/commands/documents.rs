//! Documents that are generated from the program: the API's description and the page of all options.

use std::fmt::Write as _;

use clap::CommandFactory;

use crate::config::Cli;
use crate::output;

/// Prints `openapi.json`.
pub(crate) fn openapi() -> Result<(), String> {
    output::line(&agentlens_server::openapi().to_pretty_json().map_err(|error| error.to_string())?);
    Ok(())
}

/// Prints `docs/configuration.md`.
pub(crate) fn configuration() -> Result<(), String> {
    let mut page = String::from(
        "# Configuration\n\nGenerated from the program (`agentlens configuration-docs`); every option is also a variable. An option on the command\nline stands before its variable.\n",
    );
    describe(&mut page, &Cli::command(), "agentlens");
    output::line(page.trim_end());
    Ok(())
}

fn describe(page: &mut String, command: &clap::Command, name: &str) {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        let name = format!("{name} {}", sub.get_name());
        if sub.has_subcommands() {
            describe(page, sub, &name);
            continue;
        }
        let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = write!(
            page,
            "\n## {name}\n\n{about}.\n\n| option | variable | default | meaning |\n|---|---|---|---|\n"
        );
        for argument in
            sub.get_arguments().filter(|argument| !["help", "version"].contains(&argument.get_id().as_str()))
        {
            let option = argument
                .get_long()
                .map_or_else(|| argument.get_id().to_string().to_uppercase(), |long| format!("--{long}"));
            let variable =
                argument.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
            let defaults: Vec<String> = argument
                .get_default_values()
                .iter()
                .map(|value| format!("`{}`", value.to_string_lossy()))
                .collect();
            let choices: Vec<String> =
                argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
            let is_choice = !choices.is_empty() && argument.get_action().takes_values();
            let meaning = argument
                .get_help()
                .map(|help| help.to_string().replace('\n', " ").replace('|', "\\|"))
                .unwrap_or_default();
            let choices = if is_choice { format!(" One of {}.", choices.join(", ")) } else { String::new() };
            let _ = writeln!(
                page,
                "| `{option}` | {variable} | {} | {}.{choices} |",
                defaults.join(", "),
                meaning.trim_end_matches('.')
            );
        }
    }
}
