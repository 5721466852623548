//! The bytes of a snapshot: one line that says what follows, then a line of JSON for each object.
//! The first line has the program's version, for another one may read objects otherwise, and the length and SHA-256 of the rest.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, BufWriter, Seek, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Contents;
use crate::watch::SeenNetwork;
use crate::zone::{External, ObjectKey, PackedSlice, Service, Zone};

const MAGIC: &str = "netkeel-dns-snapshot 1";
/// The longest first line that is looked for.
const HEAD: usize = 256;

/// Why a snapshot is not used, or not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// It begins otherwise than any snapshot.
    #[error("it is no snapshot of netkeel-dns")]
    Malformed,
    /// Another version wrote it.
    #[error("it was written by version {0} of netkeel-dns")]
    Foreign(String),
    /// It has another length than it says.
    #[error("it should be {expected} bytes long and is {found}")]
    Truncated {
        /// Bytes after the first line, as it says.
        expected: u64,
        /// As there are.
        found: u64,
    },
    /// It is not what was written.
    #[error("its checksum is wrong")]
    Corrupt,
    /// What was written makes no sense to this program.
    #[error("it holds an object that cannot be read")]
    Undecodable(#[source] serde_json::Error),
    /// It is larger than any that is written.
    #[error("it is larger than {} bytes", super::LIMIT)]
    Oversized,
    /// The disk.
    #[error("it cannot be read or written")]
    Io(#[from] io::Error),
}

impl Refused {
    /// The label of the metric.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Foreign(_) => "foreign",
            Self::Truncated { .. } => "truncated",
            Self::Corrupt => "corrupt",
            Self::Undecodable(_) => "undecodable",
            Self::Oversized => "oversized",
            Self::Io(_) => "io",
        }
    }
}

/// One line.
#[derive(Serialize, Deserialize)]
enum Record<'a> {
    Network(Box<Cow<'a, SeenNetwork>>),
    Namespace(Cow<'a, str>),
    /// `name.namespace`.
    Service(Cow<'a, str>, Cow<'a, Service>),
    /// `name.namespace` of the Service.
    External(Cow<'a, str>, Cow<'a, External>),
    /// `name.namespace` of its Service, its own name.
    Slice(Cow<'a, str>, Cow<'a, str>, Cow<'a, PackedSlice>),
}

/// Writes `contents`, object by object. Gives the number of bytes, `limit` at most.
pub(super) fn write(
    contents: &Contents,
    version: &str,
    limit: u64,
    out: &mut (impl Write + Seek),
) -> Result<u64, Refused> {
    let blank = head(version, 0, &[0; 32]);
    let left = limit.checked_sub(blank.len() as u64).ok_or(Refused::Oversized)?;
    out.write_all(blank.as_bytes())?;
    let (length, sum) = write_objects(contents, left, out)?;
    out.rewind()?;
    out.write_all(head(version, length, &sum).as_bytes())?;
    Ok(length + blank.len() as u64)
}

fn write_objects(contents: &Contents, limit: u64, out: &mut impl Write) -> Result<(u64, Vec<u8>), Refused> {
    let body = Summed { out, sum: Sha256::new(), length: 0 };
    let mut lines = Lines { out: BufWriter::with_capacity(1 << 16, body), left: limit };
    if let Some(network) = &contents.network {
        lines.put(&Record::Network(Box::new(Cow::Borrowed(network))))?;
    }
    for name in contents.zone.namespace_objects() {
        lines.put(&Record::Namespace(name.into()))?;
    }
    for (dotted, external) in contents.zone.externals() {
        lines.put(&Record::External(dotted.into(), Cow::Borrowed(external)))?;
    }
    for (dotted, service, slices) in contents.zone.objects() {
        if let Some(service) = service {
            lines.put(&Record::Service(dotted.into(), Cow::Borrowed(service)))?;
        }
        for (key, slice) in slices {
            let name = key.rsplit('/').next().unwrap_or_default();
            lines.put(&Record::Slice(dotted.into(), name.into(), Cow::Borrowed(slice)))?;
        }
    }
    lines.out.flush()?;
    let Summed { sum, length, .. } = lines.out.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok((length, sum.finalize().to_vec()))
}

pub(super) fn head(version: &str, length: u64, sum: &[u8]) -> String {
    let mut line = format!("{MAGIC} {version} {length:020} ");
    for byte in sum {
        let _ = write!(line, "{byte:02x}"); // writing to a String does not fail
    }
    line + "\n"
}

struct Lines<W: Write> {
    out: BufWriter<W>,
    left: u64,
}

impl<W: Write> Lines<W> {
    fn put(&mut self, record: &Record) -> Result<(), Refused> {
        let mut line = serde_json::to_vec(record).map_err(Refused::Undecodable)?;
        line.push(b'\n');
        self.left = self.left.checked_sub(line.len() as u64).ok_or(Refused::Oversized)?;
        Ok(self.out.write_all(&line)?)
    }
}

struct Summed<'a, W> {
    out: &'a mut W,
    sum: Sha256,
    length: u64,
}

impl<W: Write> Write for Summed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.sum.update(&bytes[..written]);
        self.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Puts what `bytes` hold into the zone `empty`.
pub(super) fn read(bytes: &[u8], version: &str, empty: Zone) -> Result<Contents, Refused> {
    let line = bytes.iter().take(HEAD).position(|byte| *byte == b'\n').ok_or(Refused::Malformed)?;
    let (line, body) = (&bytes[..line], &bytes[line + 1..]);
    let line = std::str::from_utf8(line).map_err(|_| Refused::Malformed)?;
    let rest = line.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(' ')).ok_or(Refused::Malformed)?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let [wrote, length, _] = fields[..] else { return Err(Refused::Malformed) };
    if wrote != version {
        return Err(Refused::Foreign(wrote.to_owned()));
    }
    let expected: u64 = length.parse().map_err(|_| Refused::Malformed)?;
    let found = body.len() as u64;
    if expected != found {
        return Err(Refused::Truncated { expected, found });
    }
    if head(version, found, &Sha256::digest(body)).trim_end() != line {
        return Err(Refused::Corrupt);
    }
    objects(body, empty)
}

fn objects(body: &[u8], mut zone: Zone) -> Result<Contents, Refused> {
    let mut network = None;
    for record in serde_json::Deserializer::from_slice(body).into_iter::<Record>() {
        match record.map_err(Refused::Undecodable)? {
            Record::Network(seen) => network = Some(seen.into_owned()),
            Record::Namespace(name) => {
                zone.put_namespace(&name);
            }
            Record::External(dotted, external) => {
                zone.put_external(&key(&dotted), Some(external.into_owned()));
            }
            Record::Service(dotted, service) => {
                zone.put_service(&key(&dotted), service.into_owned());
            }
            Record::Slice(dotted, name, slice) => {
                let service = key(&dotted);
                let slice_key = ObjectKey::new(&service.namespace, &name);
                zone.put_slice(&slice_key, &service.name, slice.into_owned());
            }
        }
    }
    Ok(Contents { zone, network })
}

fn key(dotted: &str) -> ObjectKey {
    let (name, namespace) = dotted.split_once('.').unwrap_or((dotted, ""));
    ObjectKey::new(namespace, name)
}
