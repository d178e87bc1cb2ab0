//! The people of the generated stories: children, animals, families, strangers, and what they are like.
//!
//! Values may hold slots such as `{his}`, which [`super::template`] fills later.

/// A pronoun in the four forms the templates use: subject, object, possessive, and the noun for a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gender {
    /// Subject form.
    pub he: &'static str,
    /// Object form.
    pub him: &'static str,
    /// Possessive form.
    pub his: &'static str,
    /// What a child of this gender is called.
    pub child: &'static str,
}

/// Feminine forms.
pub const SHE: Gender = Gender { he: "she", him: "her", his: "her", child: "girl" };
/// Masculine forms.
pub const HE: Gender = Gender { he: "he", him: "him", his: "his", child: "boy" };

/// Names of girls.
pub const GIRLS: &[&str] = &[
    "Mia", "Lily", "Anna", "Rosa", "Nina", "Ella", "Zoe", "Clara", "Ruby", "Maya", "Iris", "Hanna", "Lucy",
    "Tara", "Emma", "Nora", "Amy", "Ada", "Sofia", "Jane", "Molly", "Kate", "Alma", "Leila", "Wendy", "Pia",
    "Greta", "Mina", "Flora", "Dora",
];
/// Names of boys.
pub const BOYS: &[&str] = &[
    "Tom", "Ben", "Max", "Leo", "Sam", "Jack", "Finn", "Noah", "Oscar", "Hugo", "Theo", "Adam", "Eli",
    "Paul", "Tim", "Dan", "Omar", "Ravi", "Luke", "Peter", "Jonas", "Felix", "Emil", "Karl", "Nico",
    "Victor", "Henry", "Oliver", "Anton", "Milo",
];
/// Names of animals, used for either gender.
pub const PET_NAMES: &[&str] = &[
    "Pip", "Dot", "Bramble", "Hazel", "Clover", "Button", "Pepper", "Biscuit", "Sunny", "Misty", "Willow",
    "Fern", "Nutmeg", "Patch", "Bubbles", "Rusty", "Poppy", "Socks", "Ginger", "Twig",
];
/// Animals that can be the hero, each with a home.
pub const ANIMALS: &[(&str, &str)] = &[
    ("rabbit", "a warm burrow under an old oak"),
    ("fox", "a den at the edge of the forest"),
    ("mouse", "a tiny house behind the mill"),
    ("bear", "a cave near the waterfall"),
    ("duck", "a nest by the quiet pond"),
    ("squirrel", "a hollow tree on the hill"),
    ("hedgehog", "a pile of leaves in the garden"),
    ("frog", "a green pond full of lilies"),
    ("turtle", "a small cottage beside the lake"),
    ("otter", "a bend of the silver river"),
    ("cat", "a red barn on the farm"),
    ("puppy", "a wooden house behind the bakery"),
    ("owl", "a tall pine tree"),
    ("lamb", "a green meadow below the mountain"),
];
/// Homes of children.
pub const HOMES: &[&str] = &[
    "a small house by the river",
    "a white cottage near the forest",
    "a tall house in the city",
    "a hut at the foot of a mountain",
    "a yellow house next to the school",
    "a farmhouse with many animals",
    "a blue house by the sea",
    "an old mill on a hill",
    "a cabin at the edge of a lake",
    "an old house with a big tree",
];
/// A trait, the habit that shows it, and the noun people praise.
pub const TRAITS: &[(&str, &str, &str)] = &[
    ("curious", "{he} asked questions all day long", "clever mind"),
    ("kind", "{he} liked to help everyone {he} met", "good heart"),
    ("brave", "{he} was not even afraid of thunder", "great courage"),
    ("shy", "{he} often hid when strangers came", "gentle voice"),
    ("cheerful", "{he} sang a song every morning", "bright smile"),
    ("clumsy", "{he} dropped things almost every day", "good heart"),
    ("careful", "{he} always looked twice before crossing the road", "steady hands"),
    ("lazy", "{he} liked to sleep until noon", "new strength"),
    ("clever", "{he} could solve every puzzle in the house", "clever mind"),
    ("gentle", "{he} never stepped on a flower", "soft hands"),
    ("proud", "{he} did not like to ask for help", "honest words"),
    ("busy", "{he} was never still for a minute", "quick feet"),
    ("patient", "{he} could wait longer than anyone else", "calm heart"),
    ("playful", "{he} turned every job into a game", "bright smile"),
];
/// A member of the family who gives advice.
pub const ELDERS: &[(&str, Gender)] = &[
    ("mother", SHE),
    ("father", HE),
    ("grandmother", SHE),
    ("grandfather", HE),
    ("aunt", SHE),
    ("uncle", HE),
    ("big sister", SHE),
    ("big brother", HE),
];
/// A stranger who helps.
pub const HELPERS: &[(&str, Gender)] = &[
    ("old owl", HE),
    ("wise turtle", SHE),
    ("friendly baker", HE),
    ("kind farmer", SHE),
    ("gray goose", SHE),
    ("tall gardener", HE),
    ("white horse", HE),
    ("quiet fisherman", HE),
    ("small sparrow", SHE),
    ("young teacher", SHE),
    ("red squirrel", HE),
    ("old woman with a basket", SHE),
    ("man with a long beard", HE),
    ("black crow", HE),
];
