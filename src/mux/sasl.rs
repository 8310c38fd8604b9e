//! SASL: how the client proves who it is.

use std::fmt;

use bytes::{BufMut, Bytes};
use thiserror::Error;

use crate::codec::encode::{put_long_str, put_name};

/// A way to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mechanism {
    /// `PLAIN`: user and password (RFC 4616).
    Plain,
    /// `AMQPLAIN`: user and password in a field table.
    AmqPlain,
    /// `EXTERNAL`: whoever the client's TLS certificate says.
    External,
    /// `ANONYMOUS`: the server's user for strangers; `RabbitMQ` offers it from 4.0 on.
    Anonymous,
}

/// User and password. `Debug` does not show the password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub user: String,
    pub password: String,
}

/// Why a mechanism has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum SaslError {
    #[error("PLAIN cannot carry a NUL character in the user or the password")]
    Nul,
}

impl Mechanism {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::AmqPlain => "AMQPLAIN",
            Self::External => "EXTERNAL",
            Self::Anonymous => "ANONYMOUS",
        }
    }

    /// What start-ok carries. None of these mechanisms answers a challenge.
    pub(crate) fn response(self, credentials: &Credentials) -> Result<Bytes, SaslError> {
        let (user, password) = (credentials.user.as_bytes(), credentials.password.as_bytes());
        let mut out = Vec::new();
        match self {
            Self::Plain => {
                if user.contains(&0) || password.contains(&0) {
                    return Err(SaslError::Nul);
                }
                out.put_u8(0);
                out.put_slice(user);
                out.put_u8(0);
                out.put_slice(password);
            }
            Self::AmqPlain => {
                // the body of a table, without the length before it
                for (key, value) in [("LOGIN", user), ("PASSWORD", password)] {
                    put_name(&mut out, key.as_bytes());
                    out.put_u8(b'S');
                    put_long_str(&mut out, &Bytes::copy_from_slice(value));
                }
            }
            Self::External | Self::Anonymous => {}
        }
        Ok(out.into())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).field("password", &"***").finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest() -> Credentials {
        Credentials { user: "guest".into(), password: "guest".into() }
    }

    #[test]
    fn responses_are_those_of_the_protocol() {
        assert_eq!(Mechanism::Plain.response(&guest()).unwrap(), "\0guest\0guest");
        assert_eq!(
            Mechanism::AmqPlain.response(&guest()).unwrap(),
            "\x05LOGINS\0\0\0\x05guest\x08PASSWORDS\0\0\0\x05guest"
        );
        assert_eq!(Mechanism::External.response(&guest()).unwrap(), "");
    }

    #[test]
    fn plain_cannot_carry_nul() {
        let credentials = Credentials { user: "a\0b".into(), password: String::new() };
        assert_eq!(Mechanism::Plain.response(&credentials), Err(SaslError::Nul));
    }

    #[test]
    fn h3_debug_hides_the_password() {
        let credentials = Credentials { user: "me".into(), password: "hush".into() };
        assert!(!format!("{credentials:?}").contains("hush"));
    }
}
