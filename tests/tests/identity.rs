//! Who is asking, end to end: unmodified SDKs sign in through the daemon at an embedded Entra, and what they then do is
//! decided and recorded as the principal that their token names. Stolen, foreign and unseen tokens get nowhere.

mod identity {
    pub(crate) mod fixture;
    mod groups;
    mod sdks;
    mod tokens;
    mod trail;
}
