//! The server on loopback ports, asked over real sockets.

#[cfg(test)]
mod caching;
#[cfg(test)]
mod client;
#[cfg(test)]
mod following;
#[cfg(test)]
mod forwarding;
#[cfg(test)]
mod protocols;
#[cfg(test)]
mod resolver;
#[cfg(test)]
mod sockets;
#[cfg(test)]
mod upstream;
