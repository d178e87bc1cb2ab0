//! From joules to CO2, water, embodied carbon and money, for a place.

use serde::Serialize;

/// Grams of CO2-equivalents of a kilowatt-hour of electricity, over its life, in 2023: Ember's figures as Our World in Data shows
/// them ("Carbon intensity of electricity generation"). Means of a year: an hour may be far from them.
const INTENSITIES: [(&str, &str, f64); 14] = [
    ("world", "the world", 481.0),
    ("AU", "Australia", 549.0),
    ("AT", "Austria", 111.0),
    ("BE", "Belgium", 138.0),
    ("BR", "Brazil", 98.0),
    ("CA", "Canada", 170.0),
    ("CN", "China", 582.0),
    ("DE", "Germany", 381.0),
    ("DK", "Denmark", 152.0),
    ("FI", "Finland", 79.0),
    ("FR", "France", 56.0),
    ("IE", "Ireland", 291.0),
    ("IN", "India", 713.0),
    ("NO", "Norway", 30.0),
];

/// Joules of a kilowatt-hour.
const KWH: f64 = 3.6e6;
/// Seconds of a year.
const YEAR: f64 = 365.25 * 86_400.0;

/// Grams of CO2-equivalents a kilowatt-hour in a region of the table, by its code or name.
pub fn intensity(region: &str) -> Option<f64> {
    let same = |text: &str| text.eq_ignore_ascii_case(region);
    INTENSITIES.iter().find(|(code, name, _)| same(code) || same(name)).map(|it| it.2)
}

/// The codes of the table.
pub fn regions() -> impl Iterator<Item = &'static str> {
    INTENSITIES.iter().map(|it| it.0)
}

/// What a kilowatt-hour means at a place.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Site {
    /// Energy of the whole building by that of its machines; 1 for a machine at home.
    pub pue: f64,
    /// Grams of CO2-equivalents a kilowatt-hour.
    pub intensity: f64,
    /// Litres that the site evaporates for a kilowatt-hour of its machines; 0 without cooling by water.
    pub water_site: f64,
    /// Litres that power plants use for a kilowatt-hour.
    pub water_source: f64,
    /// Kilograms of CO2-equivalents that went into making the machine; none if not known.
    pub embodied_kg: Option<f64>,
    /// Years that the machine is used.
    pub lifetime_years: f64,
    /// Price of a kilowatt-hour; none if not known.
    pub price_kwh: Option<f64>,
    /// Price of an hour of the machine, of a rented one.
    pub price_hour: Option<f64>,
}

impl Default for Site {
    /// A machine at home, on the world's mean grid; 3.1 litres a kilowatt-hour are the mean of power plants in the United States
    /// that "Making AI Less Thirsty" (arXiv 2304.03271) uses.
    fn default() -> Site {
        Site {
            pue: 1.0,
            intensity: 481.0,
            water_site: 0.0,
            water_source: 3.1,
            embodied_kg: None,
            lifetime_years: 4.0,
            price_kwh: None,
            price_hour: None,
        }
    }
}

/// What a run leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Footprint {
    /// Kilowatt-hours of the building.
    pub kwh: f64,
    /// Grams of CO2-equivalents of that energy.
    pub co2_grams: f64,
    /// Litres.
    pub water_litres: f64,
    /// The machine's own share, grams of CO2-equivalents; none if its making is not known.
    pub embodied_grams: Option<f64>,
    /// Energy and rent; none if neither price is known.
    pub cost: Option<f64>,
}

impl Site {
    /// Checks the numbers.
    ///
    /// # Errors
    /// Which is out of its range, as a sentence.
    pub fn check(&self) -> Result<(), String> {
        if !(self.pue >= 1.0 && self.pue.is_finite()) {
            return Err(format!(
                "a building takes at least what its machines take: PUE is 1 or more, found {}",
                self.pue
            ));
        }
        let figures = [
            ("the carbon intensity", Some(self.intensity)),
            ("water of the site", Some(self.water_site)),
            ("water of power plants", Some(self.water_source)),
            ("embodied carbon", self.embodied_kg),
            ("the price of a kilowatt-hour", self.price_kwh),
            ("the price of an hour", self.price_hour),
        ];
        for (what, value) in figures {
            if let Some(value) = value.filter(|it| !(*it >= 0.0 && it.is_finite())) {
                return Err(format!("{what} should be 0 or more, found {value}"));
            }
        }
        if !(self.lifetime_years > 0.0) {
            return Err(format!("the machine's life should be above 0 years, found {}", self.lifetime_years));
        }
        Ok(())
    }

    /// What so many joules in so many seconds come to here: `E · PUE · intensity`, `E · (site + PUE · source)`, and the share of the
    /// machine's life.
    pub fn footprint(&self, joules: f64, seconds: f64) -> Footprint {
        let machines = joules / KWH;
        let kwh = machines * self.pue;
        let energy = self.price_kwh.map(|price| price * kwh);
        let rent = self.price_hour.map(|price| price * seconds / 3600.0);
        Footprint {
            kwh,
            co2_grams: kwh * self.intensity,
            water_litres: machines * (self.water_site + self.pue * self.water_source),
            embodied_grams: self.embodied_kg.map(|kg| 1000.0 * kg * seconds / (self.lifetime_years * YEAR)),
            cost: match (energy, rent) {
                (None, None) => None,
                (energy, rent) => Some(energy.unwrap_or(0.0) + rent.unwrap_or(0.0)),
            },
        }
    }
}

/// Uses after which a run that took `spent` joules has paid, if each use then takes `after` in the place of `before`; none if it
/// never does.
pub fn break_even(spent: f64, before: f64, after: f64) -> Option<f64> {
    (before > after).then(|| (spent / (before - after)).ceil())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kilowatt_hour_is_accounted_for() {
        let site = Site {
            pue: 1.5,
            intensity: intensity("fr").expect("in the table"),
            water_site: 1.8,
            water_source: 3.0,
            embodied_kg: Some(YEAR / 1000.0),
            lifetime_years: 1.0,
            price_kwh: Some(0.2),
            price_hour: Some(2.0),
        };
        let found = site.footprint(KWH, 3600.0);
        assert!((found.kwh - 1.5).abs() < 1e-12 && (found.co2_grams - 84.0).abs() < 1e-9, "{found:?}");
        assert!((found.water_litres - 6.3).abs() < 1e-12, "{found:?}");
        assert!((found.embodied_grams.expect("known") - 3600.0).abs() < 1e-6, "{found:?}");
        assert!((found.cost.expect("known") - 2.3).abs() < 1e-12, "{found:?}");
        assert_eq!(Site::default().footprint(KWH, 1.0).cost, None);
        assert_eq!((intensity("Norway"), intensity("Atlantis")), (Some(30.0), None));
    }

    #[test]
    fn break_even_is_a_number_of_uses_or_never() {
        assert_eq!(break_even(100.0, 5.0, 2.0), Some(34.0));
        assert_eq!(break_even(100.0, 2.0, 2.0), None);
        assert_eq!(break_even(0.0, 3.0, 2.0), Some(0.0));
    }

    #[test]
    fn impossible_sites_are_refused() {
        Site::default().check().expect("sound");
        for site in [
            Site { pue: 0.9, ..Site::default() },
            Site { intensity: -1.0, ..Site::default() },
            Site { lifetime_years: 0.0, ..Site::default() },
            Site { price_kwh: Some(f64::NAN), ..Site::default() },
        ] {
            assert!(site.check().is_err(), "{site:?}");
        }
    }
}
