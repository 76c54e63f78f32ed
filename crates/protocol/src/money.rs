//! Money: integers with a unit in the type. One micro-dollar is the stablecoin's smallest unit on chain.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The largest amount a channel can hold: the contract keeps 96 bits.
pub const MAX_MICRO: u128 = (1 << 96) - 1;

/// Nano-dollars in a micro-dollar.
const NANO_PER_MICRO: u128 = 1_000;

/// An amount of stablecoin as the chain counts it: millionths of a dollar, at most 96 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MicroDollars(u128);

impl Serialize for MicroDollars {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        crate::number::serialize(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for MicroDollars {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_from(crate::number::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// An amount before rounding: billionths of a dollar. Prices and costs are counted so.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NanoDollars(#[serde(with = "crate::number")] pub u128);

/// An amount that does not fit the 96 bits that the contract keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the amount is larger than a channel can hold")]
pub struct TooLarge;

impl MicroDollars {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The largest amount.
    pub const MAX: Self = Self(MAX_MICRO);

    /// An amount in micro-dollars. Every `u64` fits.
    pub const fn new(micro: u64) -> Self {
        Self(micro as u128)
    }

    /// The number of micro-dollars.
    pub const fn get(self) -> u128 {
        self.0
    }

    /// The sum, or `None` past 96 bits.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Self::try_from(self.0.checked_add(other.0)?).ok()
    }

    /// The difference, or `None` below zero.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// The difference, or nothing below zero.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The same amount in nano-dollars, exactly.
    pub fn to_nano(self) -> NanoDollars {
        NanoDollars(self.0 * NANO_PER_MICRO)
    }

    /// Twelve big-endian bytes, as a packed claim carries them.
    pub fn to_be_bytes12(self) -> [u8; 12] {
        let mut bytes = [0u8; 12];
        let all = self.0.to_be_bytes();
        for (to, from) in bytes.iter_mut().zip(all.iter().skip(4)) {
            *to = *from;
        }
        bytes
    }

    /// Parses dollars with at most six decimals, such as `2.50`.
    pub fn from_dollars(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        if fraction.len() > 6 || whole.is_empty() || !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return None;
        }
        let whole: u128 = whole.parse().ok()?;
        let fraction: u128 = format!("{fraction:0<6}").parse().ok()?;
        Self::try_from(whole.checked_mul(1_000_000)?.checked_add(fraction)?).ok()
    }
}

impl TryFrom<u128> for MicroDollars {
    type Error = TooLarge;

    fn try_from(micro: u128) -> Result<Self, TooLarge> {
        if micro > MAX_MICRO {
            Err(TooLarge)
        } else {
            Ok(Self(micro))
        }
    }
}

impl From<MicroDollars> for u128 {
    fn from(amount: MicroDollars) -> Self {
        amount.0
    }
}

impl NanoDollars {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The sum; saturates, which no amount that the chain can hold reaches.
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or nothing below zero.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The amount in whole micro-dollars, rounded up: the one place where money is rounded.
    pub fn round_up(self) -> Result<MicroDollars, TooLarge> {
        MicroDollars::try_from(self.0.div_ceil(NANO_PER_MICRO))
    }
}

impl fmt::Display for MicroDollars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

impl fmt::Debug for MicroDollars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for NanoDollars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

impl fmt::Debug for NanoDollars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_goes_up_and_only_when_it_must() {
        assert_eq!(NanoDollars(0).round_up().unwrap(), MicroDollars::new(0));
        assert_eq!(NanoDollars(1).round_up().unwrap(), MicroDollars::new(1));
        assert_eq!(NanoDollars(1_000).round_up().unwrap(), MicroDollars::new(1));
        assert_eq!(NanoDollars(1_001).round_up().unwrap(), MicroDollars::new(2));
        assert!(NanoDollars(u128::MAX).round_up().is_err());
    }

    #[test]
    fn dollars_are_parsed_exactly() {
        assert_eq!(MicroDollars::from_dollars("2.5"), Some(MicroDollars::new(2_500_000)));
        assert_eq!(MicroDollars::from_dollars("0.000001"), Some(MicroDollars::new(1)));
        for bad in ["", ".5", "1.0000001", "-1", "1e3", "1.2.3"] {
            assert_eq!(MicroDollars::from_dollars(bad), None, "{bad}");
        }
    }

    #[test]
    fn twelve_bytes_hold_the_largest_amount() {
        assert_eq!(MicroDollars::MAX.to_be_bytes12(), [0xff; 12]);
        assert_eq!(
            MicroDollars::new(258).to_be_bytes12(),
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]
        );
    }
}
