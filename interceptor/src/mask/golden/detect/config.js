export default { owner: "ada@contoso.example", retries: 3 };
