"""Uses `tollpass mcp` with the published client of the Model Context Protocol (PyPI: mcp).

Usage: mcp_client.py PROGRAM CONFIG URL
Fetches the URL twice within a budget of one price, and prints what each call returned, one JSON line each.
"""

import asyncio
import json
import sys

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


async def main(program, config, url):
    arguments = ["mcp", "--config", config, "--budget", "1000"]
    server = StdioServerParameters(command=program, args=arguments)
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        tools = await session.list_tools()
        print(json.dumps(sorted(tool.name for tool in tools.tools)))
        for name, given in [
            ("inspect", {"url": url}),
            ("fetch", {"url": url}),
            ("fetch", {"url": url}),
            ("spending", {}),
        ]:
            result = await session.call_tool(name, given)
            print(json.dumps([block.text for block in result.content]))


asyncio.run(main(*sys.argv[1:]))
