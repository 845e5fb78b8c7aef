// Drives server-everything by the Node SDK's own client: prints a line of JSON for the tools and one for a call.

const [, sdk, command, args] = process.argv;
const { Client } = await import(`${sdk}/client/index.js`);
const { StdioClientTransport } = await import(`${sdk}/client/stdio.js`);

const client = new Client({ name: "interceptor-tests", version: "1.0.0" });
await client.connect(new StdioClientTransport({ command, args: JSON.parse(args) }));
const { tools } = await client.listTools();
console.log(JSON.stringify(tools.map((tool) => tool.name)));
console.log(JSON.stringify(await client.callTool({ name: "echo", arguments: { message: "grüße 👋" } })));
await client.close();
