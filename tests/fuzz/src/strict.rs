//! A strict HTTP/1.1 request parser: accepts only what all parsers read the same way (RFC 9112 without any leniency).
//! Independent of the proxy's code, so that it shares no bugs with what it checks.

/// Headers in order, with names in lower case.
pub(crate) type Fields = Vec<(String, Vec<u8>)>;

/// The head of a request.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) fields: Fields,
    pub(crate) framing: Framing,
}

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Absent,
    Length(usize),
    Chunked,
}

/// A complete body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    pub(crate) trailers: Fields,
}

/// Why the bytes are ambiguous or invalid.
pub(crate) type Doubt = &'static str;

/// Parses the head at the start of the bytes, and its length; `None` while it is incomplete.
pub(crate) fn head(bytes: &[u8]) -> Result<Option<(Head, usize)>, Doubt> {
    let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let mut lines = lines(&bytes[..end])?.into_iter();
    let request = text(lines.next().unwrap_or_default())?;
    let [method, target, "HTTP/1.1"] = request.split(' ').collect::<Vec<_>>()[..] else {
        return Err("the request line is not METHOD TARGET HTTP/1.1");
    };
    // Bytes beyond ASCII pass unchanged: programs send them, and no parser gives them another meaning.
    let is_visible = |byte: u8| byte > b' ' && byte != 0x7f;
    if !is_token(method.as_bytes()) || target.is_empty() || !target.bytes().all(is_visible) {
        return Err("the method is no token, or the target has other than visible letters");
    }
    let fields = lines.map(field).collect::<Result<Fields, _>>()?;
    let framing = framing(&fields)?;
    let head = Head { method: method.to_owned(), target: target.to_owned(), fields, framing };
    Ok(Some((head, end + 4)))
}

/// Parses the body at the start of the bytes, and its length; `None` while it is incomplete.
pub(crate) fn body(framing: Framing, bytes: &[u8]) -> Result<Option<(Body, usize)>, Doubt> {
    let whole = |bytes: &[u8]| Body { bytes: bytes.to_owned(), trailers: Vec::new() };
    match framing {
        Framing::Absent => Ok(Some((whole(b""), 0))),
        Framing::Length(length) => Ok(bytes.get(..length).map(|bytes| (whole(bytes), length))),
        Framing::Chunked => chunks(bytes),
    }
}

impl Head {
    /// The values of a header, whose name is given in lower case.
    pub(crate) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let name = name.to_owned();
        self.fields.iter().filter(move |field| field.0 == name).map(|field| &field.1[..])
    }
}

fn framing(fields: &Fields) -> Result<Framing, Doubt> {
    let all = |name: &str| {
        fields.iter().filter(|field| field.0 == name).map(|field| &field.1[..]).collect::<Vec<_>>()
    };
    match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        ([], []) => Ok(Framing::Absent),
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
        ([length], []) if *length == b"0" || !length.starts_with(b"0") => {
            decimal(length).map(Framing::Length).ok_or("the length is no number")
        }
        _ => Err("the framing is said in more ways than one, or in an odd one"),
    }
}

fn chunks(bytes: &[u8]) -> Result<Option<(Body, usize)>, Doubt> {
    let mut body = Body { bytes: Vec::new(), trailers: Vec::new() };
    let mut at = 0;
    loop {
        let Some(end) = find(&bytes[at..], b"\r\n") else { return Ok(None) };
        let size = hexadecimal(&bytes[at..at + end]).ok_or("a chunk's size is more or less than digits")?;
        at += end + 2;
        if size == 0 {
            break;
        }
        let Some(chunk) = bytes.get(at..at + size + 2) else { return Ok(None) };
        body.bytes.extend_from_slice(chunk.strip_suffix(b"\r\n").ok_or("a chunk is longer than its size")?);
        at += size + 2;
    }
    if bytes[at..].starts_with(b"\r\n") {
        return Ok(Some((body, at + 2)));
    }
    let Some(end) = find(&bytes[at..], b"\r\n\r\n") else { return Ok(None) };
    body.trailers = lines(&bytes[at..at + end])?.into_iter().map(field).collect::<Result<_, _>>()?;
    Ok(Some((body, at + end + 4)))
}

/// Splits lines at CRLF; CR and LF must not occur alone.
fn lines(bytes: &[u8]) -> Result<Vec<&[u8]>, Doubt> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    while let Some(end) = find(rest, b"\r\n") {
        lines.push(&rest[..end]);
        rest = &rest[end + 2..];
    }
    lines.push(rest);
    if lines.iter().any(|line| line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))) {
        return Err("a CR, LF or NUL stands alone");
    }
    Ok(lines)
}

fn field(line: &[u8]) -> Result<(String, Vec<u8>), Doubt> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or("a field has no colon")?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if !is_token(name) {
        return Err("the name of a field is no token");
    }
    if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err("a value holds a control letter");
    }
    Ok((text(name)?.to_ascii_lowercase(), value.to_owned()))
}

fn is_token(bytes: &[u8]) -> bool {
    let is_good = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(is_good)
}

fn text(bytes: &[u8]) -> Result<&str, Doubt> {
    std::str::from_utf8(bytes).map_err(|_| "no text")
}

fn decimal(digits: &[u8]) -> Option<usize> {
    let text = text(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}

fn hexadecimal(digits: &[u8]) -> Option<usize> {
    let text = text(digits)
        .ok()
        .filter(|text| text.len() <= 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    usize::from_str_radix(text, 16).ok()
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|part| part == what)
}
