//! The embedded broker's own interface: faults, restarts, limits and inspection. What it has in common with
//! `RabbitMQ` is shown by the behaviour tests.

#[cfg(test)]
mod faults;
#[cfg(test)]
mod in_memory;
#[cfg(test)]
mod inspection;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod logins;
#[cfg(test)]
mod restarts;
#[cfg(test)]
mod tools;
