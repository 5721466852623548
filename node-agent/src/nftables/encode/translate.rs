//! What a rule needs to give packets another destination.

use super::{Family, IFNAMSIZ, L4PROTO, MapType, NETWORK, REGISTER, Rule, TRANSPORT, put, text};

/// The first register of four bytes, of sixteen.
const WORDS: u32 = 8;

impl Rule {
    /// Matches packets that came in through devices whose names begin so.
    pub(crate) fn input_devices(self, prefix: &str) -> Self {
        const IIFNAME: u32 = 6;
        debug_assert!(prefix.len() < IFNAMSIZ, "a name of a device is shorter");
        self.meta(IIFNAME).equals(prefix.as_bytes())
    }

    /// Matches packets of one family.
    pub(crate) fn family(self, family: Family) -> Self {
        const NFPROTO: u32 = 15;
        self.meta(NFPROTO).equals(&[family as u8])
    }

    /// Matches packets to an address of this host.
    pub(crate) fn for_this_host(self) -> Self {
        const ADDRESS_TYPE: u32 = 3;
        const OF_DESTINATION: u32 = 1 << 1;
        const LOCAL: u32 = 2;
        let mut data = Vec::new();
        for (kind, number) in (1..).zip([REGISTER, ADDRESS_TYPE, OF_DESTINATION]) {
            put(&mut data, kind, &number.to_be_bytes());
        }
        self.expression("fib", &data).equals(&LOCAL.to_ne_bytes())
    }

    /// Gives packets whose destination is in this map the destination that it says, and lets the others pass on.
    pub(crate) fn translated_by(self, name: &str, map: MapType) -> Self {
        let family = map.family;
        let (mut rule, mut register) = (self, WORDS);
        if map.at {
            let offset = if family == Family::V4 { 16 } else { 24 };
            rule = rule.payload_to(register, NETWORK, offset, family.len());
            register += family.len() / 4;
        }
        rule = rule.meta_to(register, L4PROTO).payload_to(register + 1, TRANSPORT, 2, 2);
        let mut lookup = Vec::new();
        put(&mut lookup, 1, &text(name));
        put(&mut lookup, 2, &WORDS.to_be_bytes());
        put(&mut lookup, 3, &WORDS.to_be_bytes());
        rule.expression("lookup", &lookup).destination_nat(family)
    }

    /// The address is in the first register, the port in the one behind it.
    fn destination_nat(self, family: Family) -> Self {
        const DESTINATION: u32 = 1;
        let port = WORDS + family.len() / 4;
        let mut data = Vec::new();
        for (kind, number) in [(1, DESTINATION), (2, family as u32), (3, WORDS), (5, port)] {
            put(&mut data, kind, &number.to_be_bytes());
        }
        self.expression("nat", &data)
    }

    pub(super) fn meta_to(self, register: u32, key: u32) -> Self {
        let mut data = Vec::new();
        put(&mut data, 1, &register.to_be_bytes());
        put(&mut data, 2, &key.to_be_bytes());
        self.expression("meta", &data)
    }

    pub(super) fn payload_to(self, register: u32, base: u32, offset: u32, length: u32) -> Self {
        let mut data = Vec::new();
        for (kind, number) in (1..).zip([register, base, offset, length]) {
            put(&mut data, kind, &number.to_be_bytes());
        }
        self.expression("payload", &data)
    }
}
