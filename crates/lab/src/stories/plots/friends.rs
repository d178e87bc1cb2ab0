//! Tales among friends: sharing, a new friend, a quarrel, giving away, a race, an animal in need.

use super::super::Plot;
use super::super::cast::Draw;

pub(super) const PLOTS: &[Plot] = &[
    // Two want the same toy.
    Plot {
        draws: &[Draw::Toy, Draw::Place],
        beats: &[
            &[
                "One {weather} {daytime}, {hero} brought {a:colour} {toy} to the {place}. {he} wanted to {use}.",
                "{hero} and {friend} found {a:colour} {toy} {there}. It lay {spot}.",
            ],
            &[
                "\"I want to {use}!\" said {friend}. \"No, it is mine!\" said {hero}.",
                "{friend} held one end and {hero} held the other. \"Give it to me!\" they both cried.",
            ],
            &[
                "They pulled and pulled, and then {broken}. Now nobody could play.",
                "{hero} ran away with the {toy} and played alone. But it was no fun to play alone.",
            ],
            &[
                "{hero} looked at {friend}, and {friend} looked at the ground. \"I am sorry,\" said {hero}. \"I am sorry too,\" said {friend}.",
                "The {helper} came by and said, \"A {toy} is small, but a friend is big. Which one do you want to keep?\"",
            ],
            &[
                "They sat down together and {mended}.",
                "So they made a rule: first one, then the other, and [no|never any] pushing.",
            ],
            &[
                "{friend} went first and {hero} went second. It was twice as much fun.",
                "They took turns until the stars came out.",
                "After that, the {toy} belonged to both of them.",
            ],
        ],
        questions: &[
            ("What did they both want?", "They both wanted the {colour} {toy}."),
            ("Where were {hero} and {friend}?", "They were {there}."),
        ],
    },
    // Somebody new.
    Plot {
        draws: &[Draw::Place, Draw::Food],
        beats: &[
            &[
                "One {weather} {daytime}, a new {fkind} came to live nearby. {fhis} name was {friend}.",
                "On the way to the {place}, {hero} saw a {fkind} who sat all alone. It was {friend}, who was new here.",
            ],
            &[
                "{friend} did not say a word. {fhe} only looked at {fhis} feet.",
                "Nobody talked to {friend}, because nobody knew {fhim}.",
            ],
            &[
                "{hero} remembered how it felt to be alone. So {he} walked over and said, \"Hello, I am {hero}. [Do you want to play|Would you like some {food}|What is your name]?\"",
                "\"{friend} looks sad,\" said {hero} to {his} {elder}. \"Then take {fhim} some {food},\" said {his} {elder}.",
            ],
            &[
                "At first {friend} was quiet. Then {fhe} smiled a very small smile.",
                "{friend} looked up. \"[You are the first one who asked me|Nobody ever asked me that],\" {fhe} said.",
            ],
            &[
                "They went to the {place} and looked at {sight}. {hero} showed {fhim} the secret place {spot}.",
                "Together they ate the {food} {there} and watched {sight}.",
            ],
            &[
                "When the sun went down, they were friends.",
                "\"Will you come back tomorrow?\" asked {friend}. \"Tomorrow and every day,\" said {hero}.",
                "It turned out that {friend} knew [a hundred jokes|many songs|the best games], and soon everyone wanted to be {fhis} friend.",
            ],
        ],
        questions: &[
            ("What was the name of the new {fkind}?", "The name of the new {fkind} was {friend}."),
            ("Where did they go?", "They went {there}."),
        ],
    },
    // Things are counted, given away and found.
    Plot {
        draws: &[Draw::Place, Draw::Numbers],
        beats: &[
            &[
                "One {weather} {daytime}, {hero} went to the {place} and found {n} {things} {spot}.",
                "{hero} had {n} {things} in {his} {colour} basket. {he} counted them every {daytime}.",
            ],
            &[
                "On the way {he} met {friend}, who had none. \"I wish I had some {things} too,\" said {friend}.",
                "{friend} looked at them. \"You have so many {things},\" {fhe} said, \"and I have no {things} at all.\"",
            ],
            &[
                "{hero} thought about it. Then {he} gave {friend} {m} of {his} {things}.",
                "\"Here, take {m},\" said {hero}. {friend} was so happy that {fhe} danced.",
            ],
            &["Now {hero} had {left} {things} left.", "{he} counted again: now there were only {left}."],
            &[
                "But {spot2} {he} found {more} more. {left} and {more} make {total}, so now {he} had {total} {things}.",
                "The next day the {helper} gave {him} {more} more, because {he} had been so kind. So in the end {hero} had {total} {things}.",
            ],
            &[
                "\"When you give, you also get,\" said {his} {elder}.",
                "{hero} put all {total} on the window, where the light made them shine.",
                "{friend} and {hero} counted everything together and laughed.",
            ],
        ],
        questions: &[
            ("How many {things} did {hero} have at first?", "{hero} had {n} {things} at first."),
            ("How many {things} did {hero} give to {friend}?", "{hero} gave {m} {things} to {friend}."),
            ("How many {things} did {hero} have in the end?", "In the end {hero} had {total} {things}."),
        ],
    },
    // The race.
    Plot {
        draws: &[Draw::Place],
        beats: &[
            &[
                "Every year there was a race to the {place}, and everyone wanted to win.",
                "\"I am the fastest of all,\" said {friend}. \"Nobody can win a race against me.\"",
                "One {daytime}, {friend} asked {hero} to run a race to the {place}.",
            ],
            &[
                "{hero} was small and not very fast, but {he} said, \"I will run too.\"",
                "{hero} had never won anything, but {he} wanted to try.",
            ],
            &[
                "\"One, two, three, go!\" called the {helper}. {friend} ran ahead like the wind.",
                "The {helper} waved {a:colour} flag, and off they went. Soon {friend} was far ahead.",
            ],
            &[
                "Halfway there, {friend} stopped to [sleep in the shade|eat some berries|look at {sight}]. \"I have plenty of time,\" {fhe} said.",
                "But then {friend} slipped and hurt {fhis} foot. \"Ouch!\" {fhe} cried.",
            ],
            &[
                "{hero} came step by step. {he} saw {friend} and stopped. \"[Are you all right|Come with me]?\" {he} asked.",
                "{hero} did not stop. {he} went on, slow and steady.",
            ],
            &[
                "{hero} came to the {place} first, and everybody cheered.",
                "In the end they reached the {place} together, side by side, and both got a prize.",
                "The {helper} said, \"The winner is {hero}!\" And {friend} clapped the loudest.",
            ],
            &[
                "\"Being fast is good,\" said {his} {elder}, \"but not giving up is better.\"",
                "{friend} never laughed about slow feet again.",
                "",
            ],
        ],
        questions: &[
            ("Where did the race go?", "The race went to the {place}."),
            ("Who said that {fhe} was fast?", "{friend} was fast."),
        ],
    },
    // An animal in need.
    Plot {
        draws: &[Draw::Place, Draw::Patient],
        beats: &[
            &[
                "One {weather} {daytime}, {hero} and {friend} were walking {there} when they heard a soft cry.",
                "{hero} was alone {there} on a {weather} {daytime}. Suddenly {he} heard a strange sound from {spot}.",
            ],
            &[
                "It was a small {patient}. They saw at once that {trouble}.",
                "{spot} was a little {colour} {patient}, and {trouble}.",
            ],
            &[
                "\"Poor thing,\" said {hero}. \"We must help.\" But the {patient} was afraid and shook all over.",
                "\"Do not be afraid,\" {hero} said in a low voice. {he} came closer, very slowly.",
            ],
            &[
                "Together with {his} {elder}, {hero} {cure}.",
                "{hero} thought for a moment. Then {he} took all {his} courage and {cure}.",
                "The {helper} came to help {him}, and together they {cure}.",
            ],
            &[
                "The {patient} looked at {hero} with shining eyes.",
                "Soon the {patient} felt better and ate out of {his} hand.",
            ],
            &[
                "After that, the {patient} came to visit {him} every {daytime}.",
                "{hero} named the {patient} {colour}, and they became good friends.",
                "Many weeks later, when {hero} was lost in the fog, the same {patient} showed {him} the way home.",
                "\"Small help can be a big thing,\" said {his} {elder}.",
            ],
        ],
        questions: &[
            ("Which animal did {hero} help?", "{hero} helped a {patient}."),
            ("Why did the {patient} need help?", "The {patient} needed help because {trouble}."),
        ],
    },
    // A quarrel ends.
    Plot {
        draws: &[Draw::Place, Draw::Gift],
        beats: &[
            &[
                "{hero} and {friend} did everything together. But one {weather} {daytime}, they had a fight about [a silly game|who was taller|a seat by the window].",
                "One {daytime}, {friend} forgot to meet {hero} {there}. {hero} waited for two hours and grew very angry.",
            ],
            &[
                "\"I will never talk to you again!\" shouted {hero}. {friend} went home without a word.",
                "\"You are not my friend anymore,\" said {hero}, and {he} slammed the door.",
            ],
            &[
                "The next day was long and gray. {hero} went {there}, but {sight} did not make {him} happy.",
                "For three days {hero} played alone. There was nobody to laugh with.",
            ],
            &[
                "\"I miss {friend},\" {he} told {his} {elder}. \"Then go and say it,\" said {his} {elder}.",
                "The {helper} said to {him}, \"Anger is a heavy bag. Why do you carry it?\"",
            ],
            &[
                "So {hero} made {gift} from {material} and put it in front of {friend}'s door.",
                "{hero} ran to {friend}'s house and knocked three times.",
            ],
            &[
                "{friend} opened the door. \"I am sorry,\" they both said at the same time, and then they had to laugh.",
                "\"I wanted to come to you too,\" said {friend}. \"I was only too proud.\"",
            ],
            &[
                "They hugged each other and ran back to the {place}.",
                "Since then, they have never let a fight last until the evening.",
            ],
        ],
        questions: &[
            ("Who was the friend of {hero}?", "The friend of {hero} was {friend}."),
            ("Were they friends again in the end?", "Yes, they were friends again."),
        ],
    },
];
