//! Options that are secret: given as they are, or as a file that holds them, as container platforms mount secrets.

use std::path::Path;

/// Bytes of a file that holds a secret, at most.
const MAX_SECRET_FILE_BYTES: u64 = 4096;

/// The value that was given, or the content of the file that was given. An empty value is none. `name` is the variable.
pub(super) fn resolve(
    name: &str,
    value: Option<&str>,
    file: Option<&Path>,
) -> Result<Option<String>, String> {
    let value = value.map(str::trim).filter(|value| !value.is_empty());
    let Some(path) = file.filter(|path| !path.as_os_str().is_empty()) else {
        return Ok(value.map(str::to_owned));
    };
    if value.is_some() {
        return Err(format!("{name} and {name}_FILE are both given; give one of them"));
    }
    let fault = |text: &str| format!("{name}_FILE: {}: {text}", path.display());
    let size = std::fs::metadata(path).map_err(|error| fault(&error.to_string()))?.len();
    if size > MAX_SECRET_FILE_BYTES {
        return Err(fault(&format!("it has {size} bytes; at most {MAX_SECRET_FILE_BYTES} are read")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| fault(&error.to_string()))?;
    match text.trim() {
        "" => Err(fault("it is empty")),
        text => Ok(Some(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_or_a_file_but_not_both() {
        let folder = tempfile::tempdir().unwrap();
        let (file, empty) = (folder.path().join("secret"), folder.path().join("empty"));
        std::fs::write(&file, "from a file\n").unwrap();
        std::fs::write(&empty, "\n").unwrap();
        let resolve = |value: Option<&str>, file: Option<&Path>| resolve("AGENTLENS_X", value, file);
        assert_eq!(resolve(None, None), Ok(None));
        assert_eq!(resolve(Some(""), None), Ok(None));
        assert_eq!(resolve(Some("given"), None), Ok(Some("given".to_owned())));
        assert_eq!(resolve(None, Some(&file)), Ok(Some("from a file".to_owned())));
        assert_eq!(resolve(Some(""), Some(&file)), Ok(Some("from a file".to_owned())));
        assert!(resolve(Some("given"), Some(&file)).unwrap_err().contains("both"));
        for path in [empty, folder.path().join("nothing"), folder.path().to_owned()] {
            let error = resolve(None, Some(&path)).unwrap_err();
            assert!(error.contains("AGENTLENS_X_FILE") && error.contains(path.to_str().unwrap()), "{error}");
        }
    }
}
