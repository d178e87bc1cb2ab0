//! Tales with a little magic: things with powers, a seed, the moon, an animal that grants a wish, a dream.

use super::super::Plot;
use super::super::cast::Draw;

pub(super) const PLOTS: &[Plot] = &[
    // Something magic goes wrong.
    Plot {
        draws: &[Draw::Magic, Draw::Place],
        beats: &[
            &[
                "One {weather} {daytime}, {hero} found {magic} {spot}. It felt warm, and it glowed a little.",
                "The {helper} gave {hero} {magic}. \"Be careful with it,\" said the {helper}.",
            ],
            &[
                "{hero} soon learned the secret: it {power}.",
                "\"This is magic!\" whispered {friend}. And it was true, because it {power}.",
            ],
            &[
                "At first it was great fun. {hero} and {friend} used it all day long.",
                "{hero} used it at breakfast, at lunch and at supper.",
                "{friend} said, \"Please do not use it too much.\" But {hero} did not listen.",
            ],
            &[
                "But {wrong}.",
                "Then there was trouble: {wrong}.",
                "It went well for two days. On the third day {wrong}.",
            ],
            &[
                "\"What have I done?\" said {hero}. {friend} took {his} hand. \"We can still put it right,\" {fhe} said.",
                "{hero} was frightened and ran to {his} {elder}. \"You know what you have to do,\" {ehe} said.",
            ],
            &[
                "So {hero} took {magic} outside and left it {spot2}. At once everything was as before.",
                "{hero} closed {his} eyes and wished that all would be as before. And so it was.",
                "They brought {magic} to the {helper}, who put it into a box and locked it.",
            ],
            &[
                "Now {hero} knew that {lesson}.",
                "\"I see now that {lesson},\" said {hero}.",
                "{his} {elder} smiled, for {hero} had learned that {lesson}.",
            ],
        ],
        questions: &[
            ("What did {hero} have?", "{hero} had {magic}."),
            ("What could it do?", "It {power}."),
            ("What did {hero} learn?", "{hero} learned that {lesson}."),
        ],
    },
    // A seed grows.
    Plot {
        draws: &[Draw::Numbers],
        beats: &[
            &[
                "In spring {hero} found a small {colour} seed in {his} pocket.",
                "The {helper} gave {hero} a tiny seed. \"Something big sleeps in it,\" said the {helper}.",
            ],
            &[
                "{he} put it into the ground and gave it water every {daytime}.",
                "{he} dug a hole in the garden, put the seed inside and covered it with earth.",
            ],
            &[
                "One day passed, two days passed, three days passed, but nothing happened. \"Maybe it is dead,\" said {friend}.",
                "\"When will it grow?\" {he} asked. \"A seed has its own clock,\" said {his} {elder}.",
            ],
            &[
                "But {hero} did not give up. {he} waited, and {he} even sang to it.",
                "Then the weather grew dry. {hero} carried water from the well, {n} buckets each day.",
            ],
            &[
                "One {weather} {daytime}, there was a little green leaf. \"It is alive!\" {he} shouted.",
                "And one {daytime}, a green tip looked out of the earth.",
            ],
            &[
                "By summer it was as tall as {hero}, and in autumn it had {total} {colour} [flowers|fruits].",
                "It grew and grew, past the window and past the roof, until birds built nests in it.",
            ],
            &[
                "{hero} gave one to {friend}, one to {his} {elder} and one to the {helper}.",
                "\"Good things take time,\" said {hero}, and {he} put a new seed into {his} pocket.",
            ],
        ],
        questions: &[
            ("What did {hero} put into the ground?", "{hero} put a seed into the ground."),
            ("What color was it?", "It was {colour}."),
        ],
    },
    // The moon or a star needs help.
    Plot {
        draws: &[Draw::Place],
        beats: &[
            &[
                "One clear night, {hero} could not sleep and looked out of the window.",
                "Every night before bed, {hero} said good night to the [moon|stars].",
            ],
            &[
                "Suddenly a little star fell from the sky and landed {there}, {spot}.",
                "Then {he} saw that one small star was missing. Something was shining {there}, {spot}.",
            ],
            &[
                "{hero} ran outside in {his} {colour} pajamas. The star was no bigger than an apple. \"I fell down,\" it said, \"and I cannot get home.\"",
                "{he} found the star and held it in both hands. It was warm and it was crying.",
            ],
            &[
                "\"I will help you,\" said {hero}. {he} climbed on the highest roof, but the sky was still too far away.",
                "{hero} tried to throw the star up, but it came down again and again.",
            ],
            &[
                "{he} woke {friend}, and {friend} had an idea: \"Let us ask the {helper}.\"",
                "\"How do stars fly?\" {he} asked. \"With a wish,\" said the star. \"But it has to be a wish for somebody else.\"",
            ],
            &[
                "So {hero} closed {his} eyes and wished that the star would see its mother again.",
                "The {helper} told them to sing the song of the night. So they sang, first softly and then loudly.",
            ],
            &[
                "The star began to shine, rose higher and higher, and was home.",
                "Up it went like a bird made of light. \"Thank you, {hero}!\" it called.",
            ],
            &[
                "Since that night, one star blinks two times when {hero} goes to bed.",
                "In the morning {hero} thought that it was a dream. But there was silver dust on {his} hands.",
            ],
        ],
        questions: &[
            ("What fell from the sky?", "A little star fell from the sky."),
            ("Who helped the star?", "{hero} helped the star."),
        ],
    },
    // A wish is granted.
    Plot {
        draws: &[Draw::Place, Draw::Patient],
        beats: &[
            &[
                "One {weather} {daytime}, {hero} met a {colour} {patient} {there}, and {trouble}.",
                "{there} {hero} found a strange {colour} {patient}. \"Help me,\" it said, for {trouble}.",
            ],
            &[
                "{hero} did not think twice. {he} {cure}.",
                "{hero} was surprised that it could talk, but {he} {cure}.",
            ],
            &[
                "\"You have a good heart,\" said the {patient}. \"I will give you one wish.\"",
                "\"I am no common {patient},\" it said. \"Make a wish, and it will come true.\"",
            ],
            &[
                "{hero} thought of a castle, and of a mountain of sweets. Then {he} thought of {friend}, who was ill. \"I wish that {friend} is well again,\" {he} said.",
                "\"I could be rich,\" thought {hero}. But then {he} remembered how sad {his} {elder} had been all winter. \"I wish that my family can laugh again,\" {he} said.",
            ],
            &[
                "The {patient} nodded, turned around three times, and was gone.",
                "There was a flash of {colour} light, and the {patient} was gone.",
            ],
            &[
                "When {hero} came home, {he} heard laughing in the house. The wish had come true.",
                "At home the door flew open, and everyone was dancing. {hero} told nobody about the wish.",
            ],
            &[
                "The best wishes are the ones for others.",
                "Sometimes {he} goes back {there} to say thank you.",
                "",
            ],
        ],
        questions: &[
            ("What did {hero} meet?", "{hero} met a {colour} {patient}."),
            ("How many wishes did {hero} get?", "{hero} got one wish."),
        ],
    },
    // Somebody who makes no music.
    Plot {
        draws: &[Draw::Place, Draw::Food],
        beats: &[
            &[
                "One {daytime}, all the colors were gone. The sky was gray, the grass was gray, and even {sight} were gray.",
                "One {weather} {daytime}, it was silent everywhere. The birds did not sing, and the bells did not ring.",
            ],
            &[
                "\"Who did this?\" asked {hero}. \"[The giant on the hill|The old king|The winter witch] did it,\" said {friend}, \"because nobody came to the birthday party.\"",
                "The {helper} knew the reason. \"[The giant|The king|The witch] is sad and has taken everything away,\" said the {helper}.",
            ],
            &[
                "\"Then we must go there,\" said {hero}. {he} packed {food} and {a:colour} candle.",
                "Everyone was afraid, but {hero} baked {food} and set out with {friend}.",
            ],
            &[
                "The way was long. They went past the {place}, through a valley, and up a hundred steps.",
                "{friend} wanted to turn back, but {hero} said, \"We are almost there.\"",
            ],
            &[
                "They knocked at the great door. \"Go away!\" said a deep voice. \"We brought you {food},\" said {hero}. \"Happy birthday!\"",
                "In a dark hall somebody sat and cried. {hero} put the {food} on the table and began to sing.",
            ],
            &[
                "It was quiet for a long time. Then the door opened, and they saw a big smile.",
                "\"For me?\" asked the voice. \"Nobody ever brought me {food}.\"",
            ],
            &[
                "They ate together until the plate was empty. And when {hero} and {friend} came home, everything was as beautiful as before.",
                "With every bite the world came back: first the blue of the sky, then the green of the trees, then the songs of the birds.",
            ],
        ],
        questions: &[
            ("What did {hero} bring?", "{hero} brought {food}."),
            ("Who went with {hero}?", "{friend} went with {hero}."),
        ],
    },
];
