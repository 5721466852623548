//! Two rows of slices that took turns, compared: the median of the rounds' ratios, and how far they lie apart.

use super::figure::median;

/// One ratio a round.
pub(super) struct Ratios(Vec<f64>);

impl Ratios {
    pub(super) fn of(ours: &[f64], baseline: &[f64]) -> Self {
        Self(ours.iter().zip(baseline).map(|(ours, baseline)| ours / baseline).collect())
    }

    pub(super) fn median(&self) -> f64 {
        median(&self.0)
    }

    /// For the reader of the progress.
    pub(super) fn spread(&self) -> String {
        let [least, quarter, three, most] = [0, 1, 3, 4].map(|quarters| quantile(&self.0, quarters));
        format!(
            "{} rounds, ratios {least:.3} to {most:.3}, middle half {quarter:.3} to {three:.3}",
            self.0.len()
        )
    }
}

/// The value that a quarter (1), a half (2), ... of the values do not exceed.
fn quantile(values: &[f64], quarters: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().saturating_sub(1) * quarters / 4).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_values_that_were_seen() {
        let ratios = [0.5, 0.1, 0.3, 0.2, 0.4];
        let seen = [0, 1, 3, 4].map(|quarters| quantile(&ratios, quarters).to_string());
        assert_eq!(seen, ["0.1", "0.2", "0.4", "0.5"]);
    }

    #[test]
    fn the_median_is_that_of_the_rounds_ratios() {
        let ratios = Ratios::of(&[90.0, 50.0, 80.0], &[100.0, 50.0, 160.0]);
        assert_eq!(ratios.median().to_string(), "0.9");
        assert_eq!(ratios.spread(), "3 rounds, ratios 0.500 to 1.000, middle half 0.500 to 0.900");
    }
}
