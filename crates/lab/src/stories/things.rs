//! The things of the generated stories: where they happen, what is held, learnt, feared and wished for.
//!
//! Facts that belong together stand in one row (a kite and how it breaks and how it is mended), so that a story that
//! draws one row stays consistent from its problem to its end.

/// A place outside: its name with preposition, two hiding spots, and something seen there.
pub const PLACES: &[(&str, &str, &str, &str, &str)] = &[
    ("park", "in the park", "under the wooden bench", "behind the fountain", "children with balloons"),
    ("forest", "in the forest", "behind a fallen tree", "under a pile of leaves", "mushrooms with red hats"),
    ("beach", "at the beach", "under a flat stone", "behind a sand castle", "white shells in the sand"),
    ("garden", "in the garden", "between the tomato plants", "under the rose bush", "bees on the flowers"),
    ("market", "at the market", "behind the apple cart", "under the cheese table", "baskets full of fruit"),
    ("meadow", "in the meadow", "in the tall grass", "beside the stone wall", "yellow butterflies"),
    ("farm", "on the farm", "behind the hay", "next to the chicken house", "fat pigs in the mud"),
    ("lake", "at the lake", "under the old boat", "between the reeds", "silver fish in the water"),
    ("hill", "on the hill", "beside a round rock", "under the apple tree", "clouds like white sheep"),
    ("river", "at the river", "under the bridge", "between two wet stones", "ducks in a long line"),
    (
        "village square",
        "in the village square",
        "behind the well",
        "under the stairs of the church",
        "a man playing the violin",
    ),
    (
        "old castle",
        "at the old castle",
        "behind the iron gate",
        "under a broken step",
        "bats in the high tower",
    ),
];
/// A toy: its name, what one does with it, what breaks, and how that is mended.
pub const TOYS: &[(&str, &str, &str, &str)] = &[
    ("kite", "fly it in the wind", "the string snapped", "tied a new string to it"),
    ("toy car", "race it down the hall", "a wheel fell off", "glued the wheel back on"),
    ("teddy bear", "hug it at night", "one arm tore off", "sewed the arm back on with blue thread"),
    ("drum", "play loud songs on it", "the skin ripped", "stretched a new skin over it"),
    ("wooden boat", "sail it on the pond", "the mast broke", "carved a new mast from a stick"),
    ("doll", "dress it in tiny clothes", "its dress got torn", "stitched the dress with a fine needle"),
    (
        "ball",
        "kick it against the wall",
        "all the air went out",
        "put a patch on the hole and filled it with air",
    ),
    ("puppet", "make it dance", "a string got lost", "put in a new string"),
    ("toy train", "drive it around the table", "the engine stopped", "cleaned the engine with a drop of oil"),
    ("music box", "listen to its song", "the lid cracked", "fixed the lid with a tiny nail"),
    ("scooter", "ride it along the street", "the handle came loose", "turned the screw until it was tight"),
    ("flute", "play a happy tune", "it fell and split", "closed the crack with warm wax"),
    ("paper lantern", "carry it after dark", "the paper got a hole", "covered the hole with yellow paper"),
    ("spinning top", "spin it on the floor", "the tip bent", "bent the tip straight again"),
];
/// Colours.
pub const COLOURS: &[&str] = &[
    "red", "blue", "green", "yellow", "orange", "purple", "white", "black", "pink", "brown", "silver",
    "golden",
];
/// Food, as a plural, with the main thing it is made of.
pub const FOODS: &[(&str, &str)] = &[
    ("cookies", "sugar"),
    ("pancakes", "milk"),
    ("apple pies", "apples"),
    ("muffins", "flour"),
    ("honey cakes", "honey"),
    ("berry tarts", "berries"),
    ("egg rolls", "eggs"),
    ("carrot cakes", "carrots"),
    ("nut bars", "nuts"),
    ("cheese buns", "cheese"),
    ("cherry pies", "cherries"),
    ("bread rolls", "butter"),
];
/// Weather and what it does.
pub const WEATHERS: &[(&str, &str)] = &[
    ("sunny", "the sun shone on the roofs"),
    ("windy", "the wind pulled at the trees"),
    ("rainy", "rain tapped on the windows"),
    ("cold", "ice covered the puddles"),
    ("snowy", "snow fell without a sound"),
    ("foggy", "fog hid the hills"),
    ("warm", "the air smelled of flowers"),
    ("cloudy", "gray clouds moved over the fields"),
];
/// Parts of the day.
pub const DAYTIMES: &[&str] = &["morning", "afternoon", "day", "evening"];
/// A skill: the verb, its noun form, how it fails, the advice, and success.
pub const SKILLS: &[(&str, &str, &str, &str, &str)] = &[
    (
        "ride a bike",
        "riding",
        "fell into the grass",
        "Look ahead and keep your feet moving",
        "rode all the way to the gate",
    ),
    (
        "swim",
        "swimming",
        "swallowed a lot of water",
        "Kick slowly and breathe out",
        "swam from one side of the pond to the other",
    ),
    (
        "whistle",
        "whistling",
        "made only a soft hiss",
        "Make your mouth round and blow gently",
        "whistled a whole song",
    ),
    (
        "bake bread",
        "baking",
        "burned the first loaf",
        "Watch the oven and be patient",
        "baked a loaf that smelled wonderful",
    ),
    (
        "climb the big tree",
        "climbing",
        "slid down and scratched a knee",
        "Hold on with three and move only one",
        "sat on the highest branch",
    ),
    (
        "paint a horse",
        "painting",
        "made a horse that looked like a table",
        "Look at the horse before you look at the paper",
        "painted a horse with a flying tail",
    ),
    (
        "tie a knot",
        "tying knots",
        "got a mess of string",
        "First make a loop and then go around it",
        "tied a knot that held all day",
    ),
    (
        "read a book alone",
        "reading",
        "got lost in the long words",
        "Read one small piece at a time",
        "read the whole book aloud",
    ),
    (
        "skate on the ice",
        "skating",
        "landed on the cold ice",
        "Bend your knees a little",
        "skated in a big circle",
    ),
    (
        "throw a ball far",
        "throwing",
        "threw the ball into a bush",
        "Step forward when you throw",
        "threw the ball over the fence",
    ),
    (
        "sing in front of people",
        "singing",
        "forgot every word",
        "Sing to one friendly face",
        "sang without one mistake",
    ),
    (
        "plant a tree",
        "planting",
        "dug a hole that was too small",
        "Dig deep and water it every day",
        "planted a tree that stood straight",
    ),
];
/// A fear: what it is, why, what is learned, and what it feels like at the end.
pub const FEARS: &[(&str, &str, &str, &str)] = &[
    (
        "the dark",
        "there were strange shapes on the wall",
        "the shapes were only coats on a hook",
        "slept well without a lamp",
    ),
    (
        "thunder",
        "it sounded like a giant rolling stones",
        "thunder was only the voice of the clouds",
        "counted the thunder and laughed",
    ),
    (
        "deep water",
        "nobody could see the bottom",
        "the water carried those who stayed calm",
        "floated like a leaf",
    ),
    (
        "the big dog",
        "it barked at every visitor",
        "the dog barked because it wanted to play",
        "threw a stick for the dog every day",
    ),
    (
        "the old bridge",
        "it moved with every step",
        "the bridge was tied with strong ropes",
        "walked across it with a song",
    ),
    (
        "bees",
        "they buzzed so loud",
        "bees were busy and had no time to be angry",
        "watched the bees for an hour",
    ),
    (
        "the cellar",
        "something was knocking down there",
        "the knocking was only a loose pipe",
        "went down alone to fetch potatoes",
    ),
    (
        "high places",
        "everything looked so small from there",
        "one could hold the rail and look at the sky",
        "waved from the top of the tower",
    ),
];
/// An animal in need: noun, what happened, and what helped.
pub const PATIENTS: &[(&str, &str, &str)] = &[
    ("bird", "its wing was hurt", "wrapped the wing in soft cloth and gave the bird some water"),
    ("kitten", "it was stuck high in a tree", "put a ladder against the tree and carried the kitten down"),
    (
        "lamb",
        "it had lost its mother",
        "walked with the lamb from field to field until they found the mother",
    ),
    ("turtle", "it lay on its back", "turned the turtle over with both hands"),
    ("puppy", "it was wet and cold", "dried the puppy with a towel and made a bed near the stove"),
    ("butterfly", "it was caught in a spider web", "opened the web with a thin stick"),
    ("goat", "its horn was stuck in the fence", "pushed the boards apart until the goat was free"),
    ("duckling", "it had fallen into a deep hole", "lowered a bucket and pulled the duckling up"),
    ("pony", "a sharp stone was in its hoof", "lifted the hoof and took the stone out"),
    ("hedgehog", "its head was stuck in a cup", "held the cup and pulled very gently"),
];
/// A gift made by hand: what, and from what.
pub const GIFTS: &[(&str, &str)] = &[
    ("a necklace", "shells from the beach"),
    ("a picture", "pressed flowers"),
    ("a scarf", "soft blue wool"),
    ("a small box", "thin pieces of wood"),
    ("a song", "words that rhymed"),
    ("a crown", "daisies and grass"),
    ("a birdhouse", "old boards and nails"),
    ("a bookmark", "ribbon and paper stars"),
    ("a candle", "yellow wax from the bees"),
    ("a bowl", "clay from the river"),
];
/// Something magic: the thing, its power, what goes wrong, and the lesson.
pub const MAGICS: &[(&str, &str, &str, &str)] = &[
    (
        "a smooth stone",
        "made every wish come true",
        "soon the room was so full of toys that nobody could move",
        "too much is not better than enough",
    ),
    (
        "a silver pencil",
        "made every drawing real",
        "a drawn tiger jumped off the page and roared",
        "it is wise to think before you begin",
    ),
    (
        "an old bell",
        "made everyone tell the truth",
        "people began to say rude things about hats and soup",
        "the truth should be told with kindness",
    ),
    (
        "a tiny key",
        "opened every door",
        "the key opened the gate of the sheep and they all ran away",
        "some doors are closed for a reason",
    ),
    (
        "a green coat",
        "made its wearer invisible",
        "nobody could hear or find the one who wore it",
        "it is good to be seen by friends",
    ),
    (
        "a glass bottle",
        "could stop the rain",
        "the flowers dried and the frogs grew sad",
        "the rain is a gift too",
    ),
    (
        "a pair of shoes",
        "could walk on clouds",
        "the way back down could not be found",
        "a home on the ground is a good place",
    ),
    (
        "a round mirror",
        "showed any place in the world",
        "the hours went by and supper grew cold",
        "it is better to play than only to watch",
    ),
];
/// Things that are counted: plural, singular.
pub const COUNTED: &[(&str, &str)] = &[
    ("apples", "apple"),
    ("stones", "stone"),
    ("shells", "shell"),
    ("eggs", "egg"),
    ("nuts", "nut"),
    ("coins", "coin"),
    ("flowers", "flower"),
    ("pears", "pear"),
    ("feathers", "feather"),
    ("buttons", "button"),
    ("books", "book"),
    ("berries", "berry"),
    ("carrots", "carrot"),
    ("stars", "star"),
    ("marbles", "marble"),
    ("cakes", "cake"),
];
/// Number words from zero to twenty.
pub const NUMBERS: &[&str] = &[
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
];
