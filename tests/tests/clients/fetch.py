"""Drives mcp-server-fetch by the Python SDK's own client: prints a line of JSON for the tools and one for each URL."""

import asyncio
import json
import sys

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters


async def main() -> None:
    command, arguments, urls = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]
    async with Client(StdioServerParameters(command=command, args=arguments)) as client:
        tools = await client.list_tools()
        print(json.dumps([tool.name for tool in tools.tools]), flush=True)
        for url in urls:
            result = await client.call_tool("fetch", {"url": url})
            print(json.dumps(result.model_dump(by_alias=True, mode="json")), flush=True)


asyncio.run(main())
