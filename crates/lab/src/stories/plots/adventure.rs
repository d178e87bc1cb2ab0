//! Tales outside: lost things, lost ways, storms, treasures, a long journey.

use super::super::Plot;
use super::super::cast::Draw;

pub(super) const PLOTS: &[Plot] = &[
    // Something is lost and found.
    Plot {
        draws: &[Draw::Toy, Draw::Place],
        beats: &[
            &[
                "One {weather} {daytime}, {hero} went to the {place} with {his} {colour} {toy}.",
                "{hero} took {his} {colour} {toy} everywhere, and one {daytime} {he} took it to the {place}.",
            ],
            &[
                "{he} saw {sight} and forgot everything else. When {he} looked around, the {toy} was gone.",
                "{he} played with {friend} until it was late. But at home {he} noticed that the {toy} was missing.",
            ],
            &[
                "\"Where is my {toy}?\" asked {hero}. {he} looked {spot}, but it was not there.",
                "{hero} was very sad. {he} searched {spot}, but {he} found only an old shoe.",
            ],
            &[
                "{friend} wanted to help. They asked the {helper}, \"Have you seen {a:colour} {toy}?\"",
                "Then {a:helper} came along. \"Why are you crying?\" asked the {helper}. \"I lost my {toy},\" said {hero}.",
            ],
            &[
                "\"Yes,\" said the {helper}. \"I saw something {colour} {spot2}.\"",
                "The {helper} thought for a while and said, \"Look {spot2}. That is where the wind takes things.\"",
            ],
            &[
                "They ran as fast as they could. And there it was, {spot2}!",
                "{hero} looked {spot2}, and there was the {toy}, a bit dirty but not broken.",
            ],
            &[
                "\"Thank you!\" said {hero} and held the {toy} tight.",
                "{he} was so glad that {he} let {friend} {use} first.",
                "After that, {hero} always looked back before {he} went home.",
            ],
        ],
        questions: &[
            ("What did {hero} lose?", "{hero} lost {his} {colour} {toy}."),
            ("Where was the {toy}?", "The {toy} was {spot2}."),
            ("Who had seen the {toy}?", "The {helper} had seen the {toy}."),
        ],
    },
    // Lost on the way.
    Plot {
        draws: &[Draw::Place],
        beats: &[
            &[
                "One {weather} {daytime}, {his} {elder} said, \"Take this basket to {friend}, and stay on the path.\"",
                "{hero} wanted to visit {friend}, who lived on the other side of the {place}.",
            ],
            &[
                "{hero} went along the road. But then {he} saw {sight} and left the path to look.",
                "\"I know a short way,\" {he} thought, and {he} turned left at the big rock.",
            ],
            &[
                "Soon everything looked the same. {he} went left and right, but {he} could not find the road.",
                "It became dark, and {effect}. {hero} did not know where {he} was.",
            ],
            &[
                "{he} sat down and called for help. Nobody answered, only [an owl|a frog|the wind].",
                "{he} wanted to cry, but {he} remembered what {his} {elder} always said: \"When you are lost, stay calm and think.\"",
            ],
            &[
                "Then {he} saw a small light. It was the {helper} with a lamp. \"Are you lost?\" asked the {helper}.",
                "Something moved {spot}. It was {a:helper}. \"Follow me,\" said the {helper}, \"I know every stone here.\"",
                "{hero} listened. Far away {he} heard the sound of a bell, and {he} walked toward it.",
            ],
            &[
                "They crossed a [little bridge|dry field|quiet road], and at last {hero} saw {friend}'s house.",
                "Step by step, {he} came back to the road, and at the end of it stood {friend} with a lamp.",
            ],
            &[
                "\"We were so worried!\" said {friend}. They drank hot tea, and {hero} told everything.",
                "{his} {elder} held {him} for a long time. \"Next time I will stay on the path,\" said {hero}.",
            ],
        ],
        questions: &[
            ("Who did {hero} want to visit?", "{hero} wanted to visit {friend}."),
            ("Why did {hero} get lost?", "{hero} got lost because {he} left the path."),
        ],
    },
    // A storm and many hands.
    Plot {
        draws: &[Draw::Food],
        beats: &[
            &[
                "One night a great storm came over the land. The wind howled and the rain fell like stones.",
                "It began on a {weather} {daytime}. First there was a little wind, and then there was a big storm.",
            ],
            &[
                "In the morning {friend}'s roof was gone. {friend} stood in front of the house and cried.",
                "The storm broke the bridge, and nobody could get to the {helper} on the other side.",
            ],
            &[
                "\"We must do something,\" said {hero}. \"But I am too small to do it alone.\"",
                "{hero} wanted to help at once, but the boards were much too heavy for {him}.",
            ],
            &[
                "So {he} went from door to door and asked everyone. The {helper} brought a hammer, and {his} {elder} brought rope.",
                "{hero} rang the old bell as loud as {he} could. From all sides neighbors came with tools and wood.",
            ],
            &[
                "They worked all day. Some carried boards, some held the ladder, and {hero} passed the nails.",
                "Everyone did a little, and so a big thing was done before the evening.",
            ],
            &[
                "When it was finished, {friend} gave everyone {food}.",
                "At night they all sat around a fire and ate {food}. The storm was only a story now.",
            ],
            &[
                "\"Many hands make light work,\" said {his} {elder}.",
                "{hero} was tired, but {he} had never been so happy.",
                "",
            ],
        ],
        questions: &[
            ("What came over the land?", "A storm came over the land."),
            ("What did they eat in the end?", "They ate {food}."),
        ],
    },
    // A map and a treasure.
    Plot {
        draws: &[Draw::Place, Draw::Numbers],
        beats: &[
            &[
                "In an old {colour} box {hero} found a map with a cross on it.",
                "One {weather} {daytime}, a bottle with a map inside came down the river, and {hero} pulled it out.",
            ],
            &[
                "\"It is a treasure map!\" said {friend}. \"The cross is {there}.\"",
                "{hero} showed it to {friend}. They looked at it for a long time. The way went to the {place}.",
            ],
            &[
                "The first sign said: \"Walk {n} steps and turn around.\" So they walked {n} steps and turned around.",
                "They packed a rope, a lamp and {n} {things}, and they left before breakfast.",
            ],
            &[
                "Then they met {a:helper}, who asked them a riddle: \"[What has hands but cannot clap? A clock|What gets wet while it dries? A towel|What has teeth but cannot bite? A comb].\" \"That was easy,\" laughed {hero}.",
                "On the way they passed {sight}, but they did not stop.",
                "A deep ditch was in the way. {hero} made a bridge from a long board, and {friend} went over first.",
            ],
            &[
                "At last they stood {there}. They dug {spot} until they hit something hard.",
                "The cross was exactly {spot2}. {friend} held the lamp, and {hero} dug.",
            ],
            &[
                "It was a chest, and inside were {left} {things} and a letter. \"The real treasure is the friend who came with you,\" it said.",
                "They opened the chest. It was full of [gold|old books|glass stones], and it shone in the light.",
                "There was no gold in it, only a note: \"Look at the sky.\" And above them was the brightest rainbow they had ever seen.",
            ],
            &[
                "{hero} and {friend} shared everything in two equal parts.",
                "They laughed the whole way home.",
                "They put the map back, so that somebody else could find it.",
            ],
        ],
        questions: &[
            ("What did {hero} find?", "{hero} found a map."),
            ("Where was the treasure?", "The treasure was {there}."),
            ("Who came with {hero}?", "{friend} came with {hero}."),
        ],
    },
    // A message carried far.
    Plot {
        draws: &[Draw::Place, Draw::Gift],
        beats: &[
            &[
                "One {daytime}, the {helper} gave {hero} a letter. \"Bring it to the {place} before the sun goes down,\" said the {helper}.",
                "{his} {elder} was ill and needed medicine from the other side of the {place}. \"I will get it,\" said {hero}.",
            ],
            &[
                "It was a {weather} day, and {effect}. But {hero} put on {his} {colour} [coat|hat|scarf] and went out.",
                "{friend} wanted to come along, so they left together.",
            ],
            &[
                "First they came to a wide river. There was no bridge, so they [built a raft from old logs|jumped from stone to stone].",
                "First the road went up a steep hill. {hero} wanted to rest, but {he} went on.",
            ],
            &[
                "Then a big [goose|goat|dog] stood in the way. \"Only those who say please may pass,\" it said. \"Please,\" said {hero}, and it stepped aside.",
                "Then the path split in two. {hero} looked at the ground and followed the fresh tracks.",
            ],
            &[
                "They saw {sight}, but there was no time to stop.",
                "At noon {he} was hungry. {he} ate half of {his} bread and kept the other half for the way back.",
            ],
            &[
                "Just before the sun went down, {hero} was there. \"You are right on time,\" said a voice.",
                "{he} came home in the last light of the day. {his} feet hurt, but {he} had done it.",
            ],
            &[
                "As a thank you, {he} got {gift} made of {material}.",
                "\"I knew that I could trust you,\" {he} heard, and that was the best reward.",
            ],
        ],
        questions: &[("Where did {hero} have to go?", "{hero} had to go to the {place}.")],
    },
];
