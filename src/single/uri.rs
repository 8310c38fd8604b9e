//! AMQP URIs: `amqp[s]://[user[:password]@][host][:port][,[host][:port]…][/vhost][?query]`.
//!
//! The grammar is the broker's (RFC 3986 plus query parameters), with these choices:
//! - an empty path segment, `amqp://host/`, is the vhost `/` and not the vhost with the empty name;
//! - the userinfo ends at the last `@` of the authority, so that a raw `@` in a password works;
//! - a raw `#`, or a raw `@` behind an authority without userinfo, is refused: it comes from a password
//!   that was not percent-encoded, whose pieces would otherwise be taken for a host or a vhost;
//! - several hosts stand with commas between them, each with its own port;
//! - a query parameter that nobody knows is refused, since it is most likely a known one that was misspelt;
//! - characters outside ASCII may stand raw, white space and control characters may not.
//!
//! No error repeats any of the input, and `Debug` hides user, password and the key file's password.

use std::{fmt, fmt::Write, net::Ipv6Addr, path::PathBuf, str::FromStr, time::Duration};

use crate::mux::sasl::Mechanism;

/// The decoded parts of an AMQP URI; what the text leaves out is `None`, and the caller has the defaults.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Uri {
    /// Whether the scheme is `amqps`: TLS from the first byte.
    pub(crate) tls: bool,
    /// The user name; empty when the text has an empty one, as in `amqp://:@host`.
    pub(crate) user: Option<String>,
    /// The password; empty when the text has an empty one.
    pub(crate) password: Option<String>,
    /// The hosts in the text's order, at least one.
    pub(crate) hosts: Vec<HostPort>,
    /// The virtual host; an empty path segment is `/`.
    pub(crate) vhost: Option<String>,
    /// The parameters behind the `?`.
    pub(crate) query: Query,
}

/// One host of a URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    /// Name or address; IPv6 without brackets, with a zone as `fe80::1%eth0`.
    pub(crate) host: Option<String>,
    /// The port, never 0; its default depends on `tls`.
    pub(crate) port: Option<u16>,
}

/// The query parameters of an AMQP URI; of a repeated one the last counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Query {
    /// `heartbeat`, in seconds; 0 asks for none.
    pub(crate) heartbeat: Option<u16>,
    /// `connection_timeout`, given in milliseconds.
    pub(crate) connection_timeout: Option<Duration>,
    /// `channel_max`; 0 stands for no limit.
    pub(crate) channel_max: Option<u16>,
    /// `frame_max`, in bytes; 0 stands for no limit. The protocol's minimum is not checked here.
    pub(crate) frame_max: Option<u32>,
    /// Each `auth_mechanism`, in the order of the text.
    pub(crate) auth_mechanism: Vec<Mechanism>,
    /// The parameters about TLS.
    pub(crate) tls: TlsQuery,
}

/// The query parameters about TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TlsQuery {
    /// `cacertfile`: the authorities to trust.
    pub(crate) ca_cert_file: Option<PathBuf>,
    /// `certfile`: the client's certificate.
    pub(crate) cert_file: Option<PathBuf>,
    /// `keyfile`: the client's private key.
    pub(crate) key_file: Option<PathBuf>,
    /// `password`: what the key file is encrypted with, not the login's password.
    pub(crate) key_password: Option<Secret>,
    /// `verify`: true for `verify_peer`, false for `verify_none`.
    pub(crate) verify_peer: Option<bool>,
    /// `fail_if_no_peer_cert`.
    pub(crate) fail_if_no_peer_cert: Option<bool>,
    /// `server_name_indication`.
    pub(crate) server_name: Option<ServerName>,
    /// `depth`: how many intermediate certificates a chain may have.
    pub(crate) depth: Option<u8>,
    /// `customize_hostname_check=https`: match host names as HTTPS does, wildcards included.
    pub(crate) https_hostname_check: bool,
}

/// Text that `Debug` shows as `***`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

/// What `server_name_indication` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ServerName {
    /// `disable`: no name is sent. The certificate must have the host's name all the same.
    Disable,
    /// The name to send and to compare with the certificate.
    Name(String),
}

/// What is wrong with an AMQP URI. It holds nothing of the URI's text, which may contain a password.
///
/// The variants with a `&str` name the part: user, password, host, port, vhost or query.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UriError {
    /// The text is empty.
    #[error("it is empty: write amqp://user:password@host/vhost")]
    Empty,
    /// There is no `://`.
    #[error("it has no scheme: begin it with amqp://")]
    NoScheme,
    /// The scheme is one that people use for the same, or by mistake; what of it, and what to write.
    #[error("the scheme {0}:// {1}")]
    ForeignScheme(&'static str, &'static str),
    /// The text begins with neither `amqp://` nor `amqps://`.
    #[error("it must begin with amqp:// or amqps://")]
    Scheme,
    /// White space before or behind the whole.
    #[error(
        "it has white space or a line break before or behind it, as values read from files do: remove it"
    )]
    Untrimmed,
    /// There is a raw `#`.
    #[error("it has a raw '#', which would start a fragment: in a password or elsewhere write %23")]
    Fragment,
    /// There is a raw `@` in the vhost or the query, and none before them.
    #[error("it has '@' only after a '/' or '?': in a password write %2F or %3F, elsewhere %40")]
    MisplacedAt,
    /// There is white space or a control character: raw, or in the host in whatever form.
    #[error("the {0} has white space or a control character: remove it, or percent-encode it")]
    WhiteSpace(&'static str),
    /// A `%` is not followed by two hexadecimal digits.
    #[error("the {0} has a '%' without two hexadecimal digits after it: write %25 for '%' itself")]
    Escape(&'static str),
    /// The percent-decoded bytes are not UTF-8.
    #[error("the {0} is not UTF-8 after percent-decoding")]
    NotUtf8(&'static str),
    /// There is a second `:` after the userinfo.
    #[error("host and port have more than one ':' between them: an IPv6 address needs brackets, as in [::1]")]
    SecondColon,
    /// A bracket is not closed, encloses no IPv6 address, or has text beside it.
    #[error("the host's brackets do not enclose an IPv6 address and nothing else, as in [::1]:5672")]
    Ipv6,
    /// The port is a number, but not from 1 to 65535.
    #[error("the port is out of range: it must be from 1 to 65535")]
    PortRange,
    /// The port is not a number.
    #[error("the port is not a number from 1 to 65535; in a password write %2F for '/' and %3F for '?'")]
    Port,
    /// There is nothing between two commas, or beside one.
    #[error("the list of hosts has an empty entry: write host1:port1,host2:port2")]
    NoHost,
    /// There is a second URI behind a comma.
    #[error(
        "it has another one behind a comma: write amqp://user:password@host1,host2/vhost for several hosts"
    )]
    SecondUri,
    /// The path is `//`.
    #[error("it ends in '//', which Celery writes for the vhost '/': end it in one '/', or in '/%2F'")]
    DoubleSlash,
    /// The path has a second `/`.
    #[error("the vhost has a second '/': within a vhost write %2F")]
    VhostSegments,
    /// There is a query parameter of another name than the known ones. It is not repeated: it may be a part of a password.
    #[error("the query parameter number {number} is unknown: {}", suggestion(*nearest))]
    UnknownKey {
        /// Which one it is, from 1 on.
        number: usize,
        /// The known one that is meant, probably.
        nearest: Option<&'static str>,
    },
    /// There is a query parameter that other clients know, and what is to be used in its place.
    #[error("the query parameter {0} is of another client: {1}")]
    ForeignKey(&'static str, &'static str),
    /// A query parameter that this crate knows has a value it cannot use.
    #[error("the query parameter {key} must be {expected}")]
    QueryValue {
        /// The parameter's name.
        key: &'static str,
        /// What its value may be.
        expected: &'static str,
    },
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        if text.is_empty() {
            return Err(UriError::Empty);
        }
        let (scheme, rest) = text.split_once("://").ok_or(UriError::NoScheme)?;
        let tls = scheme.eq_ignore_ascii_case("amqps");
        if !tls && !scheme.eq_ignore_ascii_case("amqp") {
            return Err(foreign(scheme));
        }
        // within it, blanks are told with the part that has them
        if text.trim_end().len() < text.len() && !rest.trim_end().contains(is_blank) {
            return Err(UriError::Untrimmed);
        }
        if rest.contains('#') {
            return Err(UriError::Fragment);
        }
        let (hierarchy, query) = split_optional(rest, '?');
        let (authority, path) = split_optional(hierarchy, '/');
        if authority.ends_with(",amqp:") || authority.ends_with(",amqps:") {
            return Err(UriError::SecondUri);
        }
        let (user, password, address) = match authority.rsplit_once('@') {
            Some((userinfo, address)) => {
                let (user, password) = split_optional(userinfo, ':');
                (Some(user), password, address)
            }
            None if rest.contains('@') => return Err(UriError::MisplacedAt),
            None => (None, None, authority),
        };
        let hosts = parse_hosts(address)?;
        Ok(Self {
            tls,
            user: user.map(|user| decode("user", user)).transpose()?,
            password: password.map(|password| decode("password", password)).transpose()?,
            hosts,
            vhost: path.map(parse_vhost).transpose()?,
            query: query.map(Query::parse).transpose()?.unwrap_or_default(),
        })
    }
}

impl fmt::Debug for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uri")
            .field("tls", &self.tls)
            .field("user", &self.user.clone().map(Secret))
            .field("password", &self.password.clone().map(Secret))
            .field("hosts", &self.hosts)
            .field("vhost", &self.vhost)
            .field("query", &self.query)
            .finish()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Query {
    /// The parameters that mean something, with what each must be.
    const KNOWN: [(&str, &str); 14] = [
        ("heartbeat", "a number of seconds from 0 to 65535"),
        ("connection_timeout", "a number of milliseconds from 0 to 4294967295"),
        ("channel_max", "a number from 0 to 65535"),
        ("frame_max", "a number from 0 to 4294967295"),
        ("auth_mechanism", "plain, amqplain, external or anonymous"),
        ("cacertfile", "the path of a file"),
        ("certfile", "the path of a file"),
        ("keyfile", "the path of a file"),
        ("password", "the password of the key file"),
        ("verify", "verify_peer or verify_none"),
        ("fail_if_no_peer_cert", "true or false"),
        ("server_name_indication", "a host name, or disable"),
        ("depth", "a number from 0 to 255"),
        ("customize_hostname_check", "https"),
    ];

    /// Parameters of other clients for what is done in another way here.
    const FOREIGN: [(&str, &str); 12] = [
        ("ssl_options", "name the files in cacertfile, certfile and keyfile"),
        ("ssl", "write amqps:// for TLS"),
        ("retry_delay", "use a robust connection and its backoff"),
        ("connection_attempts", "use a robust connection and its attempts"),
        ("reconnect_interval", "use a robust connection and its backoff"),
        ("blocked_connection_timeout", "limit each publish with Publish::deadline"),
        ("socket_timeout", "write connection_timeout, in milliseconds"),
        ("stack_timeout", "write connection_timeout, in milliseconds"),
        ("name", "use ConnectOptions::connection_name"),
        ("connection_name", "use ConnectOptions::connection_name"),
        ("client_properties", "use ConnectOptions::client_property"),
        ("vhost", "write the vhost behind the host, as in amqp://host/vhost"),
    ];

    /// Reads `key=value` pairs with `&` between them.
    fn parse(text: &str) -> Result<Self, UriError> {
        let mut query = Self::default();
        for (number, pair) in (1..).zip(text.split('&')) {
            if pair.is_empty() {
                continue;
            }
            let (key, value) = split_optional(pair, '=');
            let (key, value) = (decode("query", key)?, decode("query", value.unwrap_or_default())?);
            if let Some(&(key, instead)) = Self::FOREIGN.iter().find(|(foreign, _)| *foreign == key) {
                return Err(UriError::ForeignKey(key, instead));
            }
            let known = Self::KNOWN.iter().find(|(known, _)| *known == key);
            let &(key, expected) =
                known.ok_or_else(|| UriError::UnknownKey { number, nearest: nearest(&key) })?;
            query.set(key, value).ok_or(UriError::QueryValue { key, expected })?;
        }
        Ok(query)
    }

    /// Takes the value of a known parameter, or refuses it with `None`.
    fn set(&mut self, key: &str, value: String) -> Option<()> {
        let tls = &mut self.tls;
        match key {
            "heartbeat" => self.heartbeat = Some(digits(&value)?),
            "connection_timeout" => {
                self.connection_timeout = Some(Duration::from_millis(digits::<u32>(&value)?.into()));
            }
            "channel_max" => self.channel_max = Some(digits(&value)?),
            "frame_max" => self.frame_max = Some(digits(&value)?),
            "auth_mechanism" => self.auth_mechanism.push(parse_mechanism(&value)?),
            "cacertfile" => tls.ca_cert_file = Some(not_empty(value)?.into()),
            "certfile" => tls.cert_file = Some(not_empty(value)?.into()),
            "keyfile" => tls.key_file = Some(not_empty(value)?.into()),
            "password" => tls.key_password = Some(Secret(value)),
            "verify" => tls.verify_peer = Some(flag(&value, "verify_peer", "verify_none")?),
            "fail_if_no_peer_cert" => tls.fail_if_no_peer_cert = Some(flag(&value, "true", "false")?),
            "server_name_indication" if value == "disable" => tls.server_name = Some(ServerName::Disable),
            "server_name_indication" => tls.server_name = Some(ServerName::Name(not_empty(value)?)),
            "depth" => tls.depth = Some(digits(&value)?),
            "customize_hostname_check" if value == "https" => tls.https_hostname_check = true,
            _ => return None,
        }
        Some(())
    }
}

/// Finds a mechanism by its name, in any case.
fn parse_mechanism(name: &str) -> Option<Mechanism> {
    [Mechanism::Plain, Mechanism::AmqPlain, Mechanism::External, Mechanism::Anonymous]
        .into_iter()
        .find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
}

/// The error for another scheme than the two. It tells only well-known ones: others may be anything.
fn foreign(scheme: &str) -> UriError {
    const FOREIGN: [(&str, &str); 10] = [
        ("pyamqp", "is Celery's word for it: write amqp://"),
        ("py-amqp", "is Celery's word for it: write amqp://"),
        ("librabbitmq", "is Celery's word for it: write amqp://"),
        ("rabbitmq", "is not one of AMQP: write amqp://"),
        ("rabbit", "is not one of AMQP: write amqp://"),
        ("amqp+ssl", "is another word for TLS: write amqps://"),
        ("http", "is for the management API, on another port: write amqp:// and the port of AMQP"),
        ("https", "is for the management API, on another port: write amqp:// and the port of AMQP"),
        ("mqtt", "is for another protocol, on another port: write amqp:// and the port of AMQP"),
        ("rabbitmq-stream", "is for another protocol, on another port: write amqp:// and the port of AMQP"),
    ];
    if scheme.trim_start().len() < scheme.len() {
        return UriError::Untrimmed;
    }
    let found = FOREIGN.into_iter().find(|(foreign, _)| scheme.eq_ignore_ascii_case(foreign));
    found.map_or(UriError::Scheme, |(scheme, what)| UriError::ForeignScheme(scheme, what))
}

/// The known parameter that is most like this one, if it is so like that it was probably meant.
fn nearest(key: &str) -> Option<&'static str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let key = plain(key);
    // longer than any, and the work grows with it
    if key.len() > 64 {
        return None;
    }
    // written in another way, a part of it, or with more behind it
    let meant = |known: &str| {
        known.replace('_', "") == key.replace('_', "")
            || known.ends_with(&format!("_{key}"))
            || key.starts_with(&format!("{known}_"))
    };
    let by_name = Query::KNOWN.iter().map(|(known, _)| *known).find(|known| meant(known));
    by_name.or_else(|| {
        let distances = Query::KNOWN.iter().map(|(known, _)| (distance(&key, known), *known));
        distances.min().filter(|(distance, known)| *distance <= known.len() / 3).map(|(_, known)| known)
    })
}

/// How many characters have to be added, removed or replaced to make one text of the other.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (above, character) in (1..).zip(one.chars()) {
        let (mut left, mut corner) = (above, above - 1);
        for (cell, wanted) in row.iter_mut().skip(1).zip(other.chars()) {
            let replaced = corner + usize::from(character != wanted);
            corner = *cell;
            left = replaced.min(*cell + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = above;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// What an unknown query parameter may have been meant to be.
fn suggestion(nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("did you mean {nearest}?"),
        None => format!("known are {}", Query::KNOWN.map(|(known, _)| known).join(", ")),
    }
}

/// Reads one or several hosts.
fn parse_hosts(addresses: &str) -> Result<Vec<HostPort>, UriError> {
    let several = addresses.contains(',');
    let parse = |address: &str| match address {
        "" if several => Err(UriError::NoHost),
        _ => parse_address(address),
    };
    addresses.split(',').map(parse).collect()
}

/// Reads `[host][:port]`.
fn parse_address(address: &str) -> Result<HostPort, UriError> {
    let (host, port) = if let Some(bracketed) = address.strip_prefix('[') {
        let (literal, behind) = bracketed.split_once(']').ok_or(UriError::Ipv6)?;
        let ("", port) = split_optional(behind, ':') else { return Err(UriError::Ipv6) };
        (parse_ipv6(literal)?, port)
    } else {
        let (host, port) = split_optional(address, ':');
        if host.contains(['[', ']']) {
            return Err(UriError::Ipv6);
        }
        (decode("host", host)?, port)
    };
    // No host has blanks, not even encoded.
    refuse_blanks("host", &host)?;
    refuse_blanks("port", port.unwrap_or_default())?;
    let port = match port {
        // RFC 3986: a ':' with nothing behind it is the same as none.
        None | Some("") => None,
        Some(port) if port.contains(':') => return Err(UriError::SecondColon),
        Some(port) if !port.bytes().all(|byte| byte.is_ascii_digit()) => return Err(UriError::Port),
        Some(port) => Some(digits(port).filter(|port| *port != 0).ok_or(UriError::PortRange)?),
    };
    Ok(HostPort { host: not_empty(host), port })
}

/// Checks what stands between brackets: an IPv6 address, perhaps with a zone (RFC 6874: `fe80::1%25eth0`).
fn parse_ipv6(literal: &str) -> Result<String, UriError> {
    let decoded = decode("host", literal)?;
    if is_ipv6(&decoded) { Ok(decoded) } else { Err(UriError::Ipv6) }
}

/// Whether a host is an IPv6 address, perhaps with a zone.
fn is_ipv6(host: &str) -> bool {
    let (address, zone) = split_optional(host, '%');
    address.parse::<Ipv6Addr>().is_ok() && !zone.is_some_and(str::is_empty)
}

/// Shows a part of a URI, percent-encoded: [`decode`] gives it back.
pub(crate) struct Encoded<'a>(pub(crate) &'a str);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        encode(f, self.0, "")
    }
}

/// Shows a host as it stands in a URI.
pub(crate) struct Host<'a>(pub(crate) &'a str);

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !is_ipv6(self.0) {
            return encode(f, self.0, "");
        }
        f.write_char('[')?;
        encode(f, self.0, ":")?;
        f.write_char(']')
    }
}

/// Percent-encodes all but the unreserved characters of RFC 3986 and some more.
fn encode(f: &mut fmt::Formatter<'_>, text: &str, more: &str) -> fmt::Result {
    for byte in text.bytes() {
        let character = char::from(byte);
        if character.is_ascii_alphanumeric() || "-._~".contains(character) || more.contains(character) {
            f.write_char(character)?;
        } else {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

/// Decodes the path, without its leading slash.
fn parse_vhost(path: &str) -> Result<String, UriError> {
    match path {
        "" => Ok("/".to_owned()),
        "/" => Err(UriError::DoubleSlash),
        _ if path.contains('/') => Err(UriError::VhostSegments),
        _ => decode("vhost", path),
    }
}

/// Splits at the first separator, if there is one.
fn split_optional(text: &str, separator: char) -> (&str, Option<&str>) {
    text.split_once(separator).map_or((text, None), |(before, behind)| (before, Some(behind)))
}

/// Parses decimal digits and nothing else: `FromStr` alone would take a `+`.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Tells the one value from the other.
fn flag(value: &str, yes: &str, no: &str) -> Option<bool> {
    (value == yes || value == no).then(|| value == yes)
}

/// Makes `None` of an empty text.
fn not_empty(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Percent-decodes one part to bytes, and those to text. A `+` stays a `+`.
fn decode(part: &'static str, raw: &str) -> Result<String, UriError> {
    refuse_blanks(part, raw)?;
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        let byte = if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            let pair = digit().zip(digit()).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
            pair.ok_or(UriError::Escape(part))?
        } else {
            byte
        };
        decoded.push(byte);
    }
    String::from_utf8(decoded).map_err(|_| UriError::NotUtf8(part))
}

/// Refuses white space and control characters.
fn refuse_blanks(part: &'static str, text: &str) -> Result<(), UriError> {
    if text.contains(is_blank) { Err(UriError::WhiteSpace(part)) } else { Ok(()) }
}

fn is_blank(character: char) -> bool {
    character.is_whitespace() || character.is_control()
}

#[cfg(test)]
mod tests;
