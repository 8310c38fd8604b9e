//! What is left of TLS without the feature: an error.

use super::ConnectOptions;
use crate::driver::dial::Stream;
use crate::driver::server::Server;
use crate::error::{Error, ErrorKind, Result, Scope};
use crate::single::uri::TlsQuery;

#[expect(clippy::unused_self, clippy::unused_async, reason = "as with the feature")]
impl ConnectOptions {
    pub(super) fn read_tls(&mut self, _query: TlsQuery, _has_password: bool) -> Result<()> {
        let text = "amqps: lepus was built without TLS; turn on its feature \"tls\" or \"tls-ring\"";
        Err(Error::new(ErrorKind::Unsupported, text).with_scope(Scope::Connection))
    }

    pub(super) async fn secured(&self, stream: Stream, _server: &Server) -> Result<Stream> {
        Ok(stream)
    }

    pub(super) fn scheme(&self) -> &'static str {
        "amqp"
    }

    pub(super) fn tls_query(&self) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amqps_names_the_feature_that_is_missing() {
        let error = ConnectOptions::new("amqps://h?cacertfile=c").unwrap_err();
        assert_eq!((error.kind(), error.scope()), (ErrorKind::Unsupported, Scope::Connection));
        assert!(error.to_string().contains("feature \"tls\""), "{error}");
    }
}
