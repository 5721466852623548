//! A server in a process of its own under attack: one client floods it with all that there is, while others ask as usual.
//! They are answered, and the server's memory is bounded. The test prints how they fared.

#[cfg(test)]
mod attack;
#[cfg(test)]
mod attacked;
#[cfg(test)]
mod server;
