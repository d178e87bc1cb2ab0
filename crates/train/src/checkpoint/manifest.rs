//! What a complete checkpoint holds: names, sizes and checksums of its files.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The manifest's place in a checkpoint.
const NAME: &str = "training/manifest.json";

/// Larger manifests are not read.
const MAX_BYTES: u64 = 16 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    files: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    name: String,
    bytes: u64,
    sha256: String,
}

impl Manifest {
    /// Lists what is in `folder`, writes the list there and has the system bring all of it to the disk.
    pub(super) fn seal(folder: &Path) -> Result<()> {
        let mut entries = Vec::new();
        for path in files(folder)? {
            let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            let bytes = fs::metadata(&path).map_err(Error::io(&path))?.len();
            entries.push(Entry { name, bytes, sha256: checksum(&path)? });
            File::open(&path).and_then(|file| file.sync_all()).map_err(Error::io(&path))?;
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let path = folder.join(NAME);
        super::write_json(&path, &Manifest { files: entries })?;
        sync_folder(&folder.join("training"))?;
        sync_folder(folder)
    }

    /// Whether the folder holds all that its manifest lists, by size.
    pub(super) fn is_complete(folder: &Path) -> bool {
        let Ok(manifest) = Manifest::read(folder) else { return false };
        let right = |entry: &Entry| {
            fs::metadata(folder.join(&entry.name)).is_ok_and(|it| it.is_file() && it.len() == entry.bytes)
        };
        manifest.files.iter().all(right)
    }

    /// Compares all files with their checksums.
    pub(super) fn check(folder: &Path) -> Result<()> {
        for entry in Manifest::read(folder)?.files {
            let path = folder.join(&entry.name);
            let bytes = fs::metadata(&path).map_err(Error::io(&path))?.len();
            if bytes != entry.bytes || checksum(&path)? != entry.sha256 {
                return Err(Error::checkpoint(
                    path,
                    "is not as it was written; the checkpoint is damaged, resume from another",
                ));
            }
        }
        Ok(())
    }

    /// Makes a checkpoint incomplete, so that one that is half removed is taken for none.
    pub(super) fn remove(folder: &Path) -> Result<()> {
        let path = folder.join(NAME);
        fs::remove_file(&path).map_err(Error::io(&path))
    }

    fn read(folder: &Path) -> Result<Manifest> {
        super::read_json(&folder.join(NAME), MAX_BYTES)
    }
}

/// All files below a folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        if path.is_dir() {
            all.extend(files(&path)?);
        } else {
            all.push(path);
        }
    }
    Ok(all)
}

fn checksum(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 1 << 18]);
    loop {
        match file.read(&mut buffer).map_err(Error::io(path))? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => hash.update(&buffer[..read]),
        }
    }
}

/// Brings a folder's list of names to the disk, where the system can.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(folder).and_then(|it| it.sync_all()).map_err(Error::io(folder))?;
    }
    Ok(())
}
