"""Fetches a URL with one of Python's HTTP clients, by nothing but its usual settings, and prints the body.

ask.py requests|httpx|aiohttp URL [POST-BODY]"""

import sys


def by_requests(url, body):
    import requests

    answer = requests.post(url, data=body) if body else requests.get(url)
    answer.raise_for_status()
    return answer.text


def by_httpx(url, body):
    import httpx

    answer = httpx.post(url, content=body) if body else httpx.get(url)
    answer.raise_for_status()
    return answer.text


def by_aiohttp(url, body):
    import asyncio

    import aiohttp

    async def ask():
        async with aiohttp.ClientSession(trust_env=True, raise_for_status=True) as session:
            asking = session.post(url, data=body) if body else session.get(url)
            async with asking as answer:
                return await answer.text()

    return asyncio.run(ask())


name, url, *rest = sys.argv[1:]
body = rest[0].encode() if rest else None
print({"requests": by_requests, "httpx": by_httpx, "aiohttp": by_aiohttp}[name](url, body), end="")
