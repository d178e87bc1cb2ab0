"""Asks a running `ounce serve` with the clients that people use: openai, anthropic, ollama, LangChain's ChatOpenAI.

    pip install openai anthropic ollama langchain-openai
    ounce serve builtin-tiny more=builtin-encoder --port 8123 &
    python tests/clients/check.py http://127.0.0.1:8123

Prints a line for each check and ends with 1 if one fails. Not part of the test suite, which needs no Python.
"""

import json
import sys

import anthropic
import ollama
import openai
from langchain_openai import ChatOpenAI

base = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
failed = []


def check(name, fine, found=""):
    print(("ok      " if fine else "FAILED  ") + name, found if not fine else "")
    if not fine:
        failed.append(name)


client = openai.OpenAI(base_url=base + "/v1", api_key="none")
models = [model.id for model in client.models.list()]
check("openai: models", len(models) >= 1, models)
model = models[0]
messages = [{"role": "user", "content": "Once upon a time"}]

whole = client.chat.completions.create(model=model, messages=messages, max_tokens=12, temperature=0)
check("openai: chat", whole.usage.completion_tokens == 12 and whole.choices[0].finish_reason == "length", whole)
text, usage = "", None
stream = client.chat.completions.create(
    model=model, messages=messages, max_tokens=12, temperature=0, stream=True, stream_options={"include_usage": True}
)
for chunk in stream:
    text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    usage = chunk.usage or usage
check("openai: chat, streamed", text == whole.choices[0].message.content, text)
check("openai: usage of a stream", usage and usage.completion_tokens == 12, usage)

scored = client.completions.create(model=model, prompt="The dog sat", max_tokens=1, logprobs=1, echo=True, temperature=0)
logprobs = scored.choices[0].logprobs
check("openai: echo with logprobs", logprobs.token_logprobs[0] is None and len(logprobs.tokens) > 3, logprobs)

schema = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
answer = client.chat.completions.create(
    model=model, messages=messages, max_tokens=200, seed=1,
    response_format={"type": "json_schema", "json_schema": {"name": "pet", "schema": schema, "strict": True}},
)
check("openai: json schema", set(json.loads(answer.choices[0].message.content)) == {"name", "age"}, answer)

tools = [{"type": "function", "function": {"name": "adopt", "parameters": schema}}]
answer = client.chat.completions.create(
    model=model, messages=messages, max_tokens=200, tools=tools, tool_choice="required", parallel_tool_calls=False, seed=1
)
call = answer.choices[0].message.tool_calls[0].function
check("openai: tools", call.name == "adopt" and "age" in json.loads(call.arguments), answer)

response = client.responses.create(model=model, input="Once upon a time", max_output_tokens=12, temperature=0)
check("openai: responses", response.output_text == text, response)
with client.responses.stream(model=model, input="Once upon a time", max_output_tokens=12, temperature=0) as events:
    pieces = "".join(event.delta for event in events if event.type == "response.output_text.delta")
check("openai: responses, streamed", pieces == text, pieces)

try:
    client.chat.completions.create(model="none", messages=messages)
    check("openai: unknown model", False)
except openai.NotFoundError as error:
    check("openai: unknown model", error.code == "model_not_found", error)
try:
    client.chat.completions.create(model=model, messages=messages, n=0)
    check("openai: bad field", False)
except openai.BadRequestError as error:
    check("openai: bad field", error.param == "n", error)
if len(models) > 1:
    vectors = client.embeddings.create(model=models[1], input=["a cat", "a dog"])
    check("openai: embeddings without a format", len(vectors.data) == 2 and len(vectors.data[0].embedding) > 8)

client = anthropic.Anthropic(base_url=base, api_key="none")
message = client.messages.create(model=model, max_tokens=12, messages=messages, extra_body={"temperature": 0})
check("anthropic: messages", message.content[0].text == text and message.stop_reason == "max_tokens", message)
with client.messages.stream(model=model, max_tokens=12, messages=messages, extra_body={"temperature": 0}) as stream:
    check("anthropic: streamed", "".join(stream.text_stream) == text)
count = client.messages.count_tokens(model=model, messages=messages)
check("anthropic: count_tokens", count.input_tokens == message.usage.input_tokens, count)

client = ollama.Client(host=base)
options = {"num_predict": 12, "temperature": 0}
check("ollama: chat", client.chat(model=model, messages=messages, options=options).message.content == text)
pieces = [part.response for part in client.generate(model=model, prompt="Once upon a time", options=options, stream=True)]
check("ollama: generate, streamed", "".join(pieces) == text, pieces)
check("ollama: list", model in [entry.model for entry in client.list().models])
check("ollama: show", client.show(model).details.family == "llama")

chat = ChatOpenAI(base_url=base + "/v1", api_key="none", model=model, temperature=0, max_tokens=12, stream_usage=True)
said = chat.invoke("Once upon a time")
check("langchain: chat", said.content == whole.choices[0].message.content, said)
check("langchain: usage", said.usage_metadata["output_tokens"] == 12, said.usage_metadata)
check("langchain: streamed", "".join(piece.content for piece in chat.stream("Once upon a time")) == said.content)
check("langchain: two at once", len(chat.batch(["The dog", "The cat"])) == 2)

sys.exit(1 if failed else 0)
