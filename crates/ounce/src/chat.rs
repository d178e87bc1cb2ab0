//! A dialogue on the terminal: a line editor with history, commands that begin with `/`, and answers that Ctrl-C
//! ends without ending the dialogue. A model without a chat template goes on with each line as a text of its own.

use std::io::Write;

use anyhow::Context;
use ounce_engine::Session;
use ounce_model::chat::Message;
use ounce_model::storage::AtomicFile;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::commands::run::{Setup, note_timings};
use crate::interrupt::Watch;
use crate::{output, suggest, user_data};

const HELP: &str = "\
/help           these lines
/system [TEXT]  set the instruction before the conversation, or show it
/retry          answer the last message again
/reset          forget the conversation
/save FILE      write the conversation to FILE as JSON
/exit           end (so does Ctrl-D); Ctrl-C ends an answer";

/// What a line beginning with `/` asks for.
#[derive(Debug, PartialEq, Eq)]
enum Command<'a> {
    Help,
    System(Option<&'a str>),
    Retry,
    Reset,
    Save(&'a str),
    Exit,
}

impl Command<'_> {
    fn parse(line: &str) -> Result<Command<'_>, String> {
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match (name, rest) {
            ("/help" | "/?", _) => Ok(Command::Help),
            ("/system", "") => Ok(Command::System(None)),
            ("/system", text) => Ok(Command::System(Some(text))),
            ("/retry", _) => Ok(Command::Retry),
            ("/reset" | "/clear", _) => Ok(Command::Reset),
            ("/save", "") => Err("/save needs the name of a file".to_string()),
            ("/save", file) => Ok(Command::Save(file)),
            ("/exit" | "/quit" | "/bye", _) => Ok(Command::Exit),
            _ => {
                let names = ["/help", "/system", "/retry", "/reset", "/save", "/exit"];
                let near = suggest::question(&suggest::close(name, names.into_iter()));
                Err(format!("{name} is no command{near} /help lists them"))
            }
        }
    }
}

/// The conversation so far and the session that holds it.
struct Dialogue<'a> {
    setup: &'a Setup<'a>,
    session: Session<'a>,
    system: Option<String>,
    messages: Vec<Message>,
    turns: u64,
    verbose: bool,
}

/// Talks until the user leaves.
///
/// # Errors
/// If the terminal can't be read or a file can't be written.
pub fn talk(setup: &Setup<'_>, system: Option<String>, verbose: bool) -> anyhow::Result<()> {
    let what =
        if setup.template.is_some() { "chat" } else { "no chat template: each line is continued as text" };
    output::note(&format!("{what} · seed {} · /help for commands", setup.sampling.seed));
    let mut editor = DefaultEditor::new().context("the terminal can't be used")?;
    let history = user_data::folder().map(|folder| folder.join("history.txt"));
    if let Some(file) = &history {
        // A missing history is an empty one.
        let _ = editor.load_history(file);
    }
    let mut dialogue =
        Dialogue { setup, session: setup.engine.session(), system, messages: Vec::new(), turns: 0, verbose };
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error).context("the terminal can't be read"),
        };
        if line.trim().is_empty() {
            continue;
        }
        let _ = editor.add_history_entry(&line);
        if let Some(file) = &history {
            save_history(&mut editor, file);
        }
        if line.starts_with('/') {
            match Command::parse(line.trim()) {
                Ok(Command::Exit) => break,
                Ok(command) => dialogue.obey(command)?,
                Err(what) => output::note(&what),
            }
        } else {
            dialogue.say(line)?;
        }
    }
    Ok(())
}

/// A history that can't be kept is no reason to end a conversation.
fn save_history(editor: &mut DefaultEditor, file: &std::path::Path) {
    let made = file.parent().map_or(Ok(()), std::fs::create_dir_all);
    if let Err(error) = made.map_err(ReadlineError::from).and_then(|()| editor.save_history(file)) {
        tracing::warn!("{}: the history was not saved: {error}", file.display());
    }
}

impl Dialogue<'_> {
    fn obey(&mut self, command: Command<'_>) -> anyhow::Result<()> {
        match command {
            Command::Help => output::note(HELP),
            Command::System(None) => output::note(self.system.as_deref().unwrap_or("no system message")),
            Command::System(Some(text)) => self.system = Some(text.to_string()),
            Command::Retry => {
                if self.messages.last().is_some_and(|last| last.role == "assistant") {
                    self.messages.pop();
                }
                match self.messages.last() {
                    Some(_) => self.reply()?,
                    None => output::note("there is nothing to answer yet"),
                }
            }
            Command::Reset => {
                self.messages.clear();
                self.session.truncate(0);
            }
            Command::Save(file) => {
                let saved = self.save(file);
                output::note(
                    &saved.map_or_else(|error| format!("error: {error:#}"), |()| format!("saved to {file}")),
                );
            }
            Command::Exit => {}
        }
        Ok(())
    }

    fn save(&self, file: &str) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(&self.all_messages())? + "\n";
        let mut draft = AtomicFile::create(file)?;
        draft.write_all(text.as_bytes()).with_context(|| file.to_string())?;
        Ok(draft.commit()?)
    }

    fn say(&mut self, line: String) -> anyhow::Result<()> {
        if self.setup.template.is_none() {
            self.messages.clear();
        }
        self.messages.push(Message::new("user", line));
        self.reply()
    }

    /// Answers the last message. A failure is told and leaves the dialogue as it was before that message.
    fn reply(&mut self) -> anyhow::Result<()> {
        match self.try_reply() {
            Ok(text) => self.messages.push(Message::new("assistant", text)),
            Err(error) if error.is::<output::ClosedPipe>() => return Err(error),
            Err(error) => {
                self.messages.pop();
                output::note(&format!("error: {error:#}"));
            }
        }
        Ok(())
    }

    fn try_reply(&mut self) -> anyhow::Result<String> {
        let ids = match self.setup.template {
            Some(template) => self.setup.conversation_ids(template, &self.all_messages())?,
            None => self
                .setup
                .tokenizer
                .encode(&self.messages.last().map(Message::text).unwrap_or_default(), true)?,
        };
        let context = self.setup.engine.spec().context_length;
        if ids.len() >= context {
            anyhow::bail!(
                "the conversation fills the model's context of {context} tokens; /reset begins a new one"
            );
        }
        let watch = Watch::start();
        let turn = self.turns;
        self.turns += 1;
        let answer = self.setup.answer_turn(turn, &mut self.session, &ids, &watch, output::print)?;
        output::line("")?;
        if answer.interrupted {
            output::note("(stopped)");
        }
        if self.verbose {
            note_timings(&answer, self.session.cache_bytes());
        }
        Ok(answer.text)
    }

    fn all_messages(&self) -> Vec<Message> {
        let system = self.system.iter().map(|text| Message::new("system", text));
        system.chain(self.messages.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_with_their_argument() {
        assert_eq!(Command::parse("/system  Be brief. "), Ok(Command::System(Some("Be brief."))));
        assert_eq!(Command::parse("/save a b.json"), Ok(Command::Save("a b.json")));
        assert_eq!(Command::parse("/quit"), Ok(Command::Exit));
        assert!(Command::parse("/save").is_err());
        assert!(Command::parse("/rest").unwrap_err().contains("did you mean /reset"));
    }
}
