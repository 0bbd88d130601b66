//! Where a process's output goes, as a request names it.
//!
//! Owns the forms of a stdout or stderr URI. Refuses unknown schemes, relative paths and unknown parameters by name.
//!
//! | form | meaning |
//! |---|---|
//! | empty | nowhere |
//! | `/path`, `fifo:///path` | a FIFO (or file) that the client made |
//! | `file:///path` | a file that the shim makes and appends to |
//! | `binary:///path?key=value` | a program that reads descriptors 3 and 4; the keys and values are its arguments |
//! | `json-file:///path?max-size=BYTES&max-file=N&lazy=1&fifo=/path` | the container log, written and rotated by the shim; with `lazy`, the file and its directory are made with the first entry |

use std::path::PathBuf;

use crate::status::{Code, Refusal};

/// A parsed output URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Discarded.
    Null,
    /// Written to an existing FIFO or file.
    Path(PathBuf),
    /// Appended to a file, made when it is not there.
    File(PathBuf),
    /// Read by a program.
    Binary {
        /// The program.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<String>,
        /// Whether the program must write a byte when it is ready (`binary-v2`); otherwise closing is enough.
        must_answer: bool,
    },
    /// The container log.
    JsonFile(JsonFile),
}

/// The parameters of a container log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonFile {
    /// The current file; older ones are `path.1`, `path.2`, ….
    pub path: PathBuf,
    /// Bytes after which the file is rotated; unlimited when `None`.
    pub max_size: Option<u64>,
    /// How many files are kept, the current one included; at least 1.
    pub max_file: u32,
    /// Made, with its directory, when the first entry is written.
    pub lazy: bool,
    /// Gets the raw bytes while somebody reads it.
    pub fifo: Option<PathBuf>,
}

impl Output {
    /// Reads `text`, the value of a request's stdout or stderr.
    pub fn parse(text: &str) -> Result<Output, Refusal> {
        if text.is_empty() {
            return Ok(Output::Null);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Ok(Output::Path(absolute(text, text)?));
        };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = absolute(&unescape(path)?, text)?;
        let query = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Ok((unescape(key)?, unescape(value)?))
            })
            .collect::<Result<Vec<_>, Refusal>>()?;
        match scheme {
            "fifo" if query.is_empty() => Ok(Output::Path(path)),
            "file" if query.is_empty() => Ok(Output::File(path)),
            "binary" | "binary-v2" => Ok(Output::Binary {
                program: path,
                arguments: query
                    .into_iter()
                    .flat_map(|(key, value)| [key, value])
                    .filter(|argument| !argument.is_empty())
                    .collect(),
                must_answer: scheme == "binary-v2",
            }),
            "json-file" => json_file(path, query).map(Output::JsonFile),
            "fifo" | "file" => Err(invalid(format!("{scheme} URI takes no parameters: {text}"))),
            other => Err(invalid(format!("unknown STDIO scheme {other}"))),
        }
    }
}

fn json_file(path: PathBuf, query: Vec<(String, String)>) -> Result<JsonFile, Refusal> {
    let mut log = JsonFile {
        path,
        max_size: None,
        max_file: 1,
        lazy: false,
        fifo: None,
    };
    for (key, value) in query {
        let wrong = || invalid(format!("json-file: {key} cannot be {value:?}"));
        match key.as_str() {
            "max-size" => {
                let size: i64 = value.parse().map_err(|_| wrong())?;
                log.max_size = u64::try_from(size).ok().filter(|size| *size > 0);
            }
            "max-file" => log.max_file = value.parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?,
            "lazy" => log.lazy = value == "1",
            "fifo" => log.fifo = Some(absolute(&value, &value)?),
            _ => return Err(invalid(format!("json-file: unknown parameter {key}"))),
        }
    }
    Ok(log)
}

fn absolute(path: &str, whole: &str) -> Result<PathBuf, Refusal> {
    if path.starts_with('/') && !path.contains('\0') {
        Ok(path.into())
    } else {
        Err(invalid(format!("stdio path is not absolute: {whole}")))
    }
}

/// Percent-decoding, with `+` as a space as in a query.
fn unescape(text: &str) -> Result<String, Refusal> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| (digit as char).to_digit(16));
                match (digit(), digit()) {
                    (Some(high), Some(low)) => (high << 4 | low) as u8,
                    _ => return Err(invalid(format!("bad escape in {text:?}"))),
                }
            }
            other => other,
        });
    }
    String::from_utf8(bytes).map_err(|_| invalid(format!("escaped bytes in {text:?} are not UTF-8")))
}

fn invalid(message: String) -> Refusal {
    Refusal::new(Code::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood() {
        assert_eq!(Output::parse("").unwrap(), Output::Null);
        assert_eq!(Output::parse("/run/a").unwrap(), Output::Path("/run/a".into()));
        assert_eq!(
            Output::parse("fifo:///run/a").unwrap(),
            Output::Path("/run/a".into())
        );
        assert_eq!(
            Output::parse("file:///a%20b").unwrap(),
            Output::File("/a b".into())
        );
        assert_eq!(
            Output::parse("binary:///bin/log?--to=file&-v").unwrap(),
            Output::Binary {
                program: "/bin/log".into(),
                arguments: vec!["--to".into(), "file".into(), "-v".into()],
                must_answer: false,
            }
        );
        assert_eq!(
            Output::parse("json-file:///l/c.log?max-size=1000&max-file=3&fifo=/run/f").unwrap(),
            Output::JsonFile(JsonFile {
                path: "/l/c.log".into(),
                max_size: Some(1000),
                max_file: 3,
                lazy: false,
                fifo: Some("/run/f".into()),
            })
        );
        let Output::JsonFile(unlimited) = Output::parse("json-file:///l?max-size=-1").unwrap() else {
            panic!("not a json-file");
        };
        assert_eq!((unlimited.max_size, unlimited.max_file), (None, 1));
    }

    #[test]
    fn nothing_is_guessed() {
        for text in [
            "relative",
            "file://relative",
            "smtp:///x",
            "file:///x?mode=1",
            "json-file:///x?compress=1",
            "json-file:///x?max-file=0",
            "json-file:///x?max-size=ten",
            "json-file:///x?fifo=rel",
            "file:///%zz",
            "file:///%ff",
        ] {
            assert_eq!(
                Output::parse(text).unwrap_err().code,
                Code::InvalidArgument,
                "{text}"
            );
        }
    }
}
