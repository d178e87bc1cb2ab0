//! Where files of the user's own are kept: chat history, evidence.

use std::path::PathBuf;

/// The folder for ounce's files of this user: `$XDG_DATA_HOME/ounce`, or the system's usual place. It need not
/// exist. None if the user has no home.
pub fn folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_DATA_HOME").or_else(|| {
        let home = std::env::home_dir()?;
        Some(match std::env::consts::OS {
            "macos" => home.join("Library/Application Support"),
            "windows" => set("APPDATA").unwrap_or_else(|| home.join("AppData/Roaming")),
            _ => home.join(".local/share"),
        })
    });
    base.map(|base| base.join("ounce"))
}
