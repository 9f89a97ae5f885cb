"""How llmcache is put into frameworks: each is given a client in one line, and asked.

Libraries that cannot be installed beside others are imported where they are used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

import llmcache

QUESTION = "Which city?"
# So many tools an agent calls before it answers.
STEPS = 2


class City(BaseModel):
    """A city."""

    name: str
    hills: int


def count(name: str, hills: int) -> str:
    """Count the hills of a city."""
    return f"{name} has {hills}"


@dataclass(frozen=True)
class Recipe:
    """`ask` is given where the model is, and gives back what came, as data; it takes `calls`."""

    ask: Callable[[str], Any]
    calls: int = 1


# LangChain, and LangGraph


def _chat_openai(root: str, **more: Any) -> Any:
    from langchain_openai import ChatOpenAI

    clients = {
        "http_client": llmcache.http_client(),
        "http_async_client": llmcache.async_http_client(),
    }
    return ChatOpenAI(model="m", base_url=f"{root}/v1", api_key="k", **clients, **more)


def _chat_anthropic(root: str) -> Any:
    from langchain_anthropic import ChatAnthropic

    model = ChatAnthropic(model="m", base_url=root, api_key="k", max_tokens=9)
    model._client = llmcache.wrap(model._client)
    model._async_client = llmcache.wrap(model._async_client)
    return model


def _embeddings(root: str) -> Any:
    from langchain_openai import OpenAIEmbeddings

    told = {"base_url": f"{root}/v1", "api_key": "k", "check_embedding_ctx_length": False}
    model = OpenAIEmbeddings(model="m", http_client=llmcache.http_client(), **told)
    return model.embed_documents(["Rome", "Oslo", "Rome"])


def _langgraph(root: str) -> Any:
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition

    model = _chat_openai(root).bind_tools([count])
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode([count]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return _messages(graph.compile().invoke({"messages": [("user", QUESTION)]})["messages"])


def _langchain_agent(root: str) -> Any:
    from langchain.agents import create_agent

    agent = create_agent(_chat_anthropic(root), tools=[count])
    asked = {"messages": [{"role": "user", "content": QUESTION}]}
    return _messages(asyncio.run(agent.ainvoke(asked))["messages"])


def _messages(messages: Iterable[Any]) -> list[Any]:
    # (LangChain makes up an id for each message)
    return [message.model_dump(mode="json", exclude={"id"}) for message in messages]


async def _alist(items: Any) -> list[Any]:
    return [item async for item in items]


# pydantic-ai


def _pydantic_model(root: str, kind: str) -> Any:
    import anthropic
    import openai
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.anthropic import AnthropicProvider
    from pydantic_ai.providers.openai import OpenAIProvider

    if kind == "anthropic":
        client: Any = llmcache.wrap(anthropic.AsyncAnthropic(api_key="k", base_url=root))
        return AnthropicModel("m", provider=AnthropicProvider(anthropic_client=client))
    client = llmcache.wrap(openai.AsyncOpenAI(api_key="k", base_url=f"{root}/v1"))
    model: Any = OpenAIResponsesModel if kind == "responses" else OpenAIChatModel
    return model("m", provider=OpenAIProvider(openai_client=client))


def _pydantic_agent(root: str, kind: str, **more: Any) -> Any:
    from pydantic_ai import Agent

    return _of_pydantic_ai(Agent(_pydantic_model(root, kind), **more).run_sync(QUESTION))


def _of_pydantic_ai(result: Any) -> Any:
    said = [message for message in result.all_messages() if message.kind == "response"]
    parts = [[(part.part_kind, str(_said_in(part))) for part in each.parts] for each in said]
    output = result.output
    output = output.model_dump() if isinstance(output, BaseModel) else output
    return [output, parts, [str(each.usage) for each in said]]


def _said_in(part: Any) -> Any:
    return getattr(part, "content", None) or (part.tool_name, part.args, part.tool_call_id)


def _pydantic_stream(root: str) -> Any:
    from pydantic_ai import Agent

    async def read() -> Any:
        async with Agent(_pydantic_model(root, "openai")).run_stream(QUESTION) as result:
            return [await _alist(result.stream_text(delta=True)), str(result.usage)]

    return asyncio.run(read())


# openai-agents


def _openai_agent(root: str, kind: str) -> Any:
    import agents

    agents.set_tracing_disabled(True)
    return asyncio.run(_run_agent(_agents_agent(root, kind)))


def _agents_agent(root: str, kind: str) -> Any:
    import agents
    import openai

    client = llmcache.wrap(openai.AsyncOpenAI(api_key="k", base_url=f"{root}/v1"))
    models = {
        "chat": agents.OpenAIChatCompletionsModel,
        "responses": agents.OpenAIResponsesModel,
    }
    model = models[kind](model="m", openai_client=client)
    return agents.Agent(name="counter", model=model, tools=[agents.function_tool(count)])


async def _run_agent(agent: Any) -> Any:
    import agents

    result = await agents.Runner.run(agent, QUESTION)
    return _of_agents(result)


def _openai_agent_stream(root: str) -> Any:
    import agents

    agents.set_tracing_disabled(True)

    async def read() -> Any:
        result = agents.Runner.run_streamed(_agents_agent(root, "responses"), QUESTION)
        events = await _alist(result.stream_events())
        raw = [each.data for each in events if each.type == "raw_response_event"]
        return [[each.model_dump(mode="json") for each in raw], _of_agents(result)]

    return asyncio.run(read())


def _of_agents(result: Any) -> Any:
    usage = result.context_wrapper.usage
    return [result.final_output, result.to_input_list(), [usage.input_tokens, usage.output_tokens]]


# LiteLLM


def _litellm(root: str, **more: Any) -> Any:
    import litellm

    litellm.telemetry = False
    litellm.client_session = llmcache.http_client(library="httpx")
    litellm.aclient_session = llmcache.async_http_client(library="httpx")
    litellm.in_memory_llm_clients_cache.flush_cache()
    messages = [{"role": "user", "content": QUESTION}]
    told = {"model": "openai/m", "api_base": f"{root}/v1", "api_key": "k"}
    return litellm, {"messages": messages, **told, **more}


def _litellm_completion(root: str) -> Any:
    litellm, asked = _litellm(root)
    return litellm.completion(**asked).model_dump()


def _litellm_async(root: str) -> Any:
    litellm, asked = _litellm(root)
    return asyncio.run(litellm.acompletion(**asked)).model_dump()


def _litellm_stream(root: str) -> Any:
    litellm, asked = _litellm(root, stream=True)
    return [chunk.model_dump(exclude={"id", "created"}) for chunk in litellm.completion(**asked)]


def _litellm_anthropic(root: str) -> Any:
    litellm, asked = _litellm(root)
    from litellm.llms.custom_httpx.http_handler import HTTPHandler

    handler = HTTPHandler(client=llmcache.http_client(library="httpx"))
    asked |= {"model": "anthropic/m", "api_base": root, "client": handler}
    return litellm.completion(**asked).model_dump(exclude={"id", "created"})


# LlamaIndex


def _llamaindex(root: str) -> Any:
    from llama_index.llms.openai import OpenAI

    return OpenAI(
        model="gpt-4.1-mini",
        api_base=f"{root}/v1",
        api_key="k",
        http_client=llmcache.http_client(library="httpx"),
        async_http_client=llmcache.async_http_client(library="httpx"),
    )


def _of_llamaindex(answer: Any) -> Any:
    return [answer.message.model_dump(mode="json"), answer.raw.model_dump(mode="json")]


def _llamaindex_tools(root: str) -> Any:
    from llama_index.core.tools import FunctionTool

    tools = [FunctionTool.from_defaults(count)]
    answer = _llamaindex(root).chat_with_tools(tools, user_msg=QUESTION)
    return _of_llamaindex(answer)


def _llamaindex_agent(root: str) -> Any:
    from llama_index.core.agent.workflow import FunctionAgent
    from llama_index.core.tools import FunctionTool

    tools: Any = [FunctionTool.from_defaults(count)]
    agent = FunctionAgent(tools=tools, llm=_llamaindex(root))

    async def run() -> Any:
        return await agent.run(user_msg=QUESTION)

    result = asyncio.run(run())
    return [str(result), [str(call.tool_output) for call in result.tool_calls]]


def _llamaindex_chat(root: str) -> Any:
    from llama_index.core.llms import ChatMessage

    return _of_llamaindex(_llamaindex(root).chat([ChatMessage(QUESTION)]))


def _llamaindex_embeddings(root: str) -> Any:
    from llama_index.embeddings.openai import OpenAIEmbedding

    client = llmcache.http_client(library="httpx")
    model = OpenAIEmbedding(api_base=f"{root}/v1", api_key="k", http_client=client)
    return model.get_text_embedding_batch(["Rome", "Oslo", "Rome"])


# instructor, with the SDK inside


def _instructor(root: str) -> Any:
    import instructor
    import openai

    sdk = llmcache.wrap(openai.OpenAI(api_key="k", base_url=f"{root}/v1"))
    client: Any = instructor.from_openai(sdk, model="m")
    asked = [{"role": "user", "content": QUESTION}]
    city, completion = client.create_with_completion(response_model=City, messages=asked)
    return [city.model_dump(), completion.model_dump()]


BESIDE_EACH_OTHER: dict[str, Recipe] = {
    "ChatOpenAI": Recipe(lambda root: _messages([_chat_openai(root).invoke(QUESTION)])),
    "ChatOpenAI, async": Recipe(
        lambda root: _messages([asyncio.run(_chat_openai(root).ainvoke(QUESTION))])
    ),
    "ChatOpenAI, stream": Recipe(lambda root: _messages(_chat_openai(root).stream(QUESTION))),
    "ChatOpenAI, async stream": Recipe(
        lambda root: _messages(asyncio.run(_alist(_chat_openai(root).astream(QUESTION))))
    ),
    "ChatOpenAI, responses": Recipe(
        lambda root: _messages([_chat_openai(root, use_responses_api=True).invoke(QUESTION)])
    ),
    "ChatOpenAI, tools": Recipe(
        lambda root: _messages([_chat_openai(root).bind_tools([count]).invoke(QUESTION)])
    ),
    "ChatOpenAI, structured": Recipe(
        lambda root: _chat_openai(root).with_structured_output(City).invoke(QUESTION).model_dump()
    ),
    "ChatAnthropic": Recipe(lambda root: _messages([_chat_anthropic(root).invoke(QUESTION)])),
    "ChatAnthropic, stream": Recipe(lambda root: _messages(_chat_anthropic(root).stream(QUESTION))),
    "OpenAIEmbeddings": Recipe(_embeddings),
    "LangChain agent": Recipe(_langchain_agent, STEPS + 1),
    "LangGraph": Recipe(_langgraph, STEPS + 1),
    "pydantic-ai": Recipe(lambda root: _pydantic_agent(root, "openai")),
    "pydantic-ai, tools": Recipe(
        lambda root: _pydantic_agent(root, "openai", tools=[count]), STEPS + 1
    ),
    "pydantic-ai, responses": Recipe(
        lambda root: _pydantic_agent(root, "responses", tools=[count]), STEPS + 1
    ),
    "pydantic-ai, Anthropic": Recipe(
        lambda root: _pydantic_agent(root, "anthropic", tools=[count]), STEPS + 1
    ),
    "pydantic-ai, structured": Recipe(
        lambda root: _pydantic_agent(root, "openai", output_type=City)
    ),
    "pydantic-ai, stream": Recipe(_pydantic_stream),
    "openai-agents": Recipe(lambda root: _openai_agent(root, "responses"), STEPS + 1),
    "openai-agents, chat": Recipe(lambda root: _openai_agent(root, "chat"), STEPS + 1),
    "openai-agents, stream": Recipe(_openai_agent_stream, STEPS + 1),
    "LiteLLM": Recipe(_litellm_completion),
    "LiteLLM, async": Recipe(_litellm_async),
    "LiteLLM, stream": Recipe(_litellm_stream),
    "LiteLLM, Anthropic": Recipe(_litellm_anthropic),
    "instructor": Recipe(_instructor),
}
OF_LLAMAINDEX: dict[str, Recipe] = {
    "LlamaIndex": Recipe(_llamaindex_chat),
    "LlamaIndex, async": Recipe(
        lambda root: str(asyncio.run(_llamaindex(root).acomplete(QUESTION)))
    ),
    "LlamaIndex, stream": Recipe(
        lambda root: [str(each.delta) for each in _llamaindex(root).stream_complete(QUESTION)]
    ),
    "LlamaIndex, tools": Recipe(_llamaindex_tools),
    "LlamaIndex agent": Recipe(_llamaindex_agent, STEPS + 1),
    "OpenAIEmbedding": Recipe(_llamaindex_embeddings),
}
RECIPES = {**BESIDE_EACH_OTHER, **OF_LLAMAINDEX}
