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
mod lasting;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod loops;
#[cfg(test)]
mod pods;
#[cfg(test)]
mod protocols;
#[cfg(test)]
mod resolver;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod sockets;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod upstream;
