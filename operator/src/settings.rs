//! What the operator is told by its own pod, and passes on to what it renders.

use std::net::SocketAddr;

/// What the rendered objects need to know of this operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Namespace of the agents.
    pub namespace: String,
    /// Image of agents and DNS.
    pub image: String,
    /// When the image is pulled.
    pub image_pull_policy: String,
    /// Present addresses of the API server.
    pub api_servers: Vec<SocketAddr>,
}

impl Settings {
    /// The value of `NETKEEL_API_SERVERS`.
    #[must_use]
    pub fn api_servers_text(&self) -> String {
        let texts: Vec<String> = self.api_servers.iter().map(SocketAddr::to_string).collect();
        texts.join(",")
    }
}
