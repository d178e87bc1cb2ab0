//! TOML text and overrides to a [`Config`], with errors that name the key.

use std::fmt::Write;
use std::path::Path;

use toml::{Table, Value};

use super::Config;
use super::keys::TABLE;
use crate::{Error, Result};

/// The configuration of a file's text, with overrides (`train.steps=100`, the value as in TOML or plain text) in order.
/// `path` is used in messages.
///
/// # Errors
/// If the text is no TOML, a key is unknown, or a value is of the wrong kind.
pub fn parse(text: &str, path: &Path, overrides: &[String]) -> Result<Config> {
    let place = &path.display();
    let mut table: Table = text.parse().map_err(|error: toml::de::Error| {
        Error::data(place, format!("is no valid TOML: {}", error.to_string().trim_end().replace('\n', " ")))
    })?;
    check_keys(&table).map_err(|what| Error::data(place, what))?;
    for text in overrides {
        let (name, value) = text.split_once('=').ok_or_else(|| {
            Error::Settings(format!("{text} should read section.key=value, as train.steps=100"))
        })?;
        let (name, value) = (name.trim(), value.trim());
        check_key(name).map_err(Error::Settings)?;
        let (section, key) = name.split_once('.').unwrap_or((name, ""));
        let parsed = format!("value = {value}").parse::<Table>().ok();
        let value =
            parsed.and_then(|mut it| it.remove("value")).unwrap_or_else(|| Value::String(value.to_string()));
        let section = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
        if let Some(section) = section.as_table_mut() {
            section.insert(key.to_string(), value);
        }
    }
    // Section by section, so that the message can say where.
    let known = |section: &str| TABLE.iter().any(|key| key.name.starts_with(&format!("{section}.")));
    for (section, value) in table.iter().filter(|(section, _)| known(section)) {
        for (key, value) in value.as_table().into_iter().flatten() {
            let one = Table::from_iter([(
                section.clone(),
                Value::Table(Table::from_iter([(key.clone(), value.clone())])),
            )]);
            if let Err(error) = Config::deserialize_from(one) {
                return Err(Error::data(place, format!("key {section}.{key}: {error}")));
            }
        }
    }
    Config::deserialize_from(table).map_err(|error| Error::data(place, error))
}

impl Config {
    fn deserialize_from(table: Table) -> Result<Config, String> {
        table.try_into().map_err(|error: toml::de::Error| error.message().to_string())
    }
}

fn check_keys(table: &Table) -> Result<(), String> {
    for (section, value) in table {
        let Value::Table(keys) = value else {
            check_key(section)?;
            return Err(format!("{section} should be a section [{section}] with keys of its own"));
        };
        if keys.is_empty() {
            check_key(&format!("{section}."))?;
        }
        keys.keys().try_for_each(|key| check_key(&format!("{section}.{key}")))?;
    }
    Ok(())
}

/// Refuses a key that there is not, with the nearest that there is.
fn check_key(name: &str) -> Result<(), String> {
    let same = |known: &str| known == name || (name.ends_with('.') && known.starts_with(name));
    if TABLE.iter().any(|key| same(key.name)) {
        return Ok(());
    }
    // The key alone may be right and the section wrong.
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_string();
    let likeness = |known: &str| {
        let own = if last(known) == last(name) { 0.9 } else { 0.0 };
        strsim::jaro_winkler(known, name).max(own)
    };
    let nearest = TABLE.iter().max_by(|a, b| likeness(a.name).total_cmp(&likeness(b.name)));
    let nearest = nearest.map_or("", |key| key.name);
    Err(format!("{name} is no key of a training run; did you mean {nearest}? ounce train --init lists all"))
}

/// A file with every key, its default and what it means.
pub fn template() -> String {
    let defaults = Table::try_from(Config::default()).unwrap_or_default();
    let mut text = String::from("# A training run: ounce train THIS_FILE\n");
    let mut section = "";
    for key in TABLE {
        let (own, name) = key.name.split_once('.').unwrap_or((key.name, ""));
        if own != section {
            section = own;
            let _ = write!(text, "\n[{section}]\n");
        }
        let default = defaults.get(own).and_then(|own| own.get(name));
        let default = default.map_or_else(|| "\"\"".to_string(), ToString::to_string);
        let _ = write!(text, "# {}\n{name} = {default}\n", key.help);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, overrides: &[&str]) -> Result<Config> {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        parse(text, Path::new("run.toml"), &overrides)
    }

    #[test]
    fn the_template_is_the_default_and_has_every_key() {
        assert_eq!(read(&template(), &[]).expect("valid"), Config::default());
        let defaults = Table::try_from(Config::default()).expect("a table");
        let names = defaults.iter().flat_map(|(section, keys)| {
            let keys = keys.as_table().expect("a section").keys();
            keys.map(move |key| format!("{section}.{key}")).collect::<Vec<_>>()
        });
        for name in names {
            assert!(TABLE.iter().any(|key| key.name == name), "{name} has no line in the table");
        }
        assert_eq!(
            TABLE.len(),
            defaults.values().map(|it| it.as_table().map_or(0, Table::len)).sum::<usize>()
        );
    }

    #[test]
    fn overrides_win_and_plain_words_are_texts() {
        let config =
            read("[train]\nsteps = 5\n", &["train.steps=7", "model.preset=minicpm", "data.train=[\"a\"]"])
                .expect("valid");
        assert_eq!(config.train.steps, 7);
        assert_eq!(config.model.preset, super::super::Preset::Minicpm);
        assert_eq!(config.data.train, [Path::new("a")]);
    }

    #[test]
    fn wrong_keys_and_values_are_named() {
        let cases = [
            ("[train]\nstep = 5", "train.step is no key of a training run; did you mean train.steps?"),
            ("[train]\nlr = 5", "did you mean optimizer.lr?"),
            ("[trian]\nsteps = 5", "did you mean train.steps?"),
            ("[train]\nsteps = \"x\"", "key train.steps: invalid type"),
            ("[train]\nsteps = -1", "key train.steps"),
            ("[optimizer]\nkind = \"adam\"", "key optimizer.kind: unknown variant"),
            ("steps = 3", "did you mean train.steps?"),
            ("[train", "is no valid TOML"),
        ];
        for (text, expected) in cases {
            let error = read(text, &[]).expect_err(text).to_string();
            assert!(error.contains("run.toml") && error.contains(expected), "{error}");
        }
        assert!(read("", &["train.stepps=4"]).expect_err("no key").to_string().contains("train.steps"));
        assert!(read("", &["steps"]).expect_err("no value").to_string().contains("section.key=value"));
    }

    #[test]
    fn lengths_below_one_are_parts_of_the_run() {
        let schedule = super::super::Rates::default().schedule(1e-3, 1000).expect("fits");
        assert_eq!((schedule.warmup, schedule.decay_start()), (20, Some(900)));
        let rates = super::super::Rates { warmup: 50.0, decay: 2000.0, ..Default::default() };
        assert!(rates.schedule(1e-3, 1000).is_err());
    }
}
