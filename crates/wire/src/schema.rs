//! The static description of Amazon's services: operations, structures, members and their traits.
//!
//! Tables are built by generated `static` items through the `const` constructors below, so that the
//! generated source stays short and adding a trait does not touch every table. Nothing here knows how
//! a shape is encoded; the codecs decide that from these facts.

/// A wire protocol of the AWS family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// JSON over POST with `X-Amz-Target`, content type `application/x-amz-json-1.0`.
    Json10,
    /// JSON over POST with `X-Amz-Target`, content type `application/x-amz-json-1.1`.
    Json11,
    /// Form parameters in, XML out (IAM, STS, Elastic Load Balancing, Auto Scaling).
    Query,
    /// EC2's own dialect of [`Protocol::Query`].
    Ec2,
    /// JSON bodies with HTTP bindings (EFS).
    RestJson,
    /// CBOR over POST to `/service/{service}/operation/{operation}`.
    Cbor,
}

/// One AWS service.
#[derive(Debug)]
pub struct Service {
    /// The name of the generated module's source model, such as `application-autoscaling`.
    pub name: &'static str,
    /// Amazon's service id, such as `Elastic Load Balancing v2`.
    pub id: &'static str,
    /// The service name in a SigV4 credential scope. `elb` and `elbv2` share theirs.
    pub signing_name: &'static str,
    /// The prefix of the service's IAM actions.
    pub iam_prefix: &'static str,
    /// The API version, which the query protocols send as `Version`.
    pub version: &'static str,
    /// What stands before the dot in `X-Amz-Target`, and names the service in rpc-v2-CBOR paths.
    pub target_prefix: &'static str,
    /// The protocols the service answers, preferred first.
    pub protocols: &'static [Protocol],
    /// The namespace of XML responses.
    pub xml_namespace: &'static str,
    /// The code of model validation errors in this service.
    pub validation: Validation,
    /// Whether JSON and CBOR errors carry the query protocol's error code in `x-amzn-query-error`.
    pub query_compatible: bool,
    /// Every operation we have the shapes of, sorted by name.
    pub operations: &'static [&'static Operation],
}

/// How a service words the violations of its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validation {
    /// `1 validation error detected: Value at 'name' failed to satisfy constraint: …` under this code.
    Listed(&'static str),
    /// ECR's `Invalid parameter at 'name' failed to satisfy constraint: '…'`.
    Ecr,
    /// EC2's `MissingParameter` and `InvalidParameterValue`.
    Ec2,
}

impl Service {
    /// The operation of that exact name.
    pub fn operation(&self, name: &str) -> Option<&'static Operation> {
        let at = self.operations.binary_search_by(|o| o.name.cmp(name)).ok()?;
        self.operations.get(at).copied()
    }

    /// Whether the service answers this protocol.
    pub fn speaks(&self, protocol: Protocol) -> bool {
        self.protocols.contains(&protocol)
    }
}

/// One operation of a service.
#[derive(Debug)]
pub struct Operation {
    /// Amazon's name, such as `RunTask`.
    pub name: &'static str,
    /// Its place in [`Service::operations`]; the generated dispatch switches on it.
    pub index: usize,
    /// The service it belongs to.
    pub service: &'static Service,
    /// The IAM action that guards it, such as `ecs:RunTask`.
    pub action: &'static str,
    /// HTTP method.
    pub method: &'static str,
    /// URI template; only restJson uses more than `/`.
    pub path: &'static str,
    /// HTTP status of a successful answer.
    pub status: u16,
    /// Input shape; an empty structure when the operation takes none.
    pub input: &'static Structure,
    /// Output shape; an empty structure when the operation returns none.
    pub output: &'static Structure,
    /// Whether the model declares an output at all.
    pub has_output: bool,
    /// The element around a query protocol's result.
    pub result_wrapper: Option<&'static str>,
    /// Errors the model names.
    pub errors: &'static [&'static ErrorShape],
    /// Whether callers must sign; false for AssumeRoleWithWebIdentity.
    pub signed: bool,
    /// The input member that makes a retry idempotent, by its model name.
    pub idempotency_token: Option<&'static str>,
    /// Which members page through the result.
    pub pagination: Option<Pagination>,
    /// Whether the answer is an event stream, which the codecs do not write.
    pub event_stream: bool,
}

impl Operation {
    /// The modelled error of that shape name.
    pub fn error(&self, name: &str) -> Option<&'static ErrorShape> {
        self.errors.iter().copied().find(|e| e.name == name)
    }
}

/// The members that page through an operation's result, by their model names.
#[derive(Debug)]
pub struct Pagination {
    /// Input member that takes the token.
    pub input_token: &'static str,
    /// Output member that returns it.
    pub output_token: &'static str,
    /// Input member that bounds one page.
    pub limit: Option<&'static str>,
    /// Output member that holds the page.
    pub result: &'static str,
}

/// An error the model names.
#[derive(Debug)]
pub struct ErrorShape {
    /// Shape name; JSON and CBOR put it into `__type`.
    pub name: &'static str,
    /// Code of the query protocols; equals `name` where the model gives none.
    pub code: &'static str,
    /// HTTP status.
    pub status: u16,
    /// Whether the server is to blame.
    pub server_fault: bool,
    /// The member that holds the text; `message` where the model has none.
    pub message: &'static str,
    /// The member that repeats the code, as EFS's errors do.
    pub code_member: Option<&'static str>,
}

/// A structure or union.
#[derive(Debug)]
pub struct Structure {
    /// Amazon's shape name.
    pub name: &'static str,
    /// Members in model order, which is the order XML is written in.
    pub members: &'static [Member],
    /// Whether exactly one member may be set.
    pub union: bool,
    /// Whether everything inside is kept out of logs.
    pub sensitive: bool,
}

impl Structure {
    /// A structure with these members.
    pub const fn new(name: &'static str, members: &'static [Member]) -> Self {
        Structure { name, members, union: false, sensitive: false }
    }

    /// Marks a union.
    pub const fn union(mut self) -> Self {
        self.union = true;
        self
    }

    /// Keeps the contents out of logs.
    pub const fn sensitive(mut self) -> Self {
        self.sensitive = true;
        self
    }

    /// Position and description of the member with this model name.
    pub fn find(&self, name: &str) -> Option<(usize, &'static Member)> {
        self.members.iter().enumerate().find(|(_, m)| m.name == name)
    }
}

/// The structure without members, for operations that take or return nothing.
pub static EMPTY: Structure = Structure::new("Unit", &[]);

/// Where a member travels in a restJson message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Location {
    /// In the document.
    Body,
    /// In the path, as a label of the URI template.
    Uri,
    /// In the query string.
    QueryString,
    /// In a header.
    Header,
    /// As the HTTP status.
    StatusCode,
}

/// A member of a structure, an element of a list, or a key or value of a map.
#[derive(Debug)]
pub struct Member {
    /// The model's name; JSON without `locationName` uses it.
    pub name: &'static str,
    /// The name on the wire (`locationName`, else the name).
    pub wire_name: &'static str,
    /// The name of the member in an EC2 request.
    pub query_name: &'static str,
    /// What it holds.
    pub shape: &'static Shape,
    /// Whether a request without it is refused.
    pub required: bool,
    /// Where restJson puts it.
    pub location: Location,
    /// How it writes a timestamp, where it differs from the protocol's habit.
    pub timestamp: Option<TimestampFormat>,
}

impl Member {
    /// A member with its own name on the wire.
    pub const fn new(name: &'static str, shape: &'static Shape) -> Self {
        Member {
            name,
            wire_name: name,
            query_name: name,
            shape,
            required: false,
            location: Location::Body,
            timestamp: None,
        }
    }

    /// Requires the member.
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Gives the name on the wire.
    pub const fn wire(mut self, name: &'static str) -> Self {
        self.wire_name = name;
        self
    }

    /// Gives the name in EC2 requests.
    pub const fn query(mut self, name: &'static str) -> Self {
        self.query_name = name;
        self
    }

    /// Binds the member to a part of the HTTP message.
    pub const fn at(mut self, location: Location) -> Self {
        self.location = location;
        self
    }

    /// Fixes the timestamp format.
    pub const fn timestamp(mut self, format: TimestampFormat) -> Self {
        self.timestamp = Some(format);
        self
    }
}

/// The textual forms of a timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampFormat {
    /// Seconds since 1970, with a fraction.
    EpochSeconds,
    /// RFC 3339 in UTC.
    DateTime,
    /// RFC 7231's HTTP date.
    HttpDate,
}

/// A regular expression from the model.
#[derive(Debug)]
pub struct Pattern {
    /// Amazon's spelling, as it appears in error messages.
    pub text: &'static str,
    /// The same in the syntax of the `regex` crate; empty when that cannot express it.
    pub regex: &'static str,
}

/// What a member holds, with its constraints.
#[derive(Debug)]
pub struct Shape {
    /// The type.
    pub kind: Kind,
    /// Smallest length or value.
    pub min: Option<f64>,
    /// Largest length or value.
    pub max: Option<f64>,
    /// Allowed values; empty for any.
    pub values: &'static [&'static str],
    /// Pattern of the whole text.
    pub pattern: Option<Pattern>,
    /// Whether it is kept out of logs and error messages.
    pub sensitive: bool,
}

/// The types of the AWS models.
#[derive(Debug)]
pub enum Kind {
    /// Text, enumerations included.
    String,
    /// 32 bits.
    Integer,
    /// 64 bits.
    Long,
    /// Single precision.
    Float,
    /// Double precision.
    Double,
    /// True or false.
    Boolean,
    /// Bytes.
    Blob,
    /// A point in time.
    Timestamp,
    /// Any JSON.
    Document,
    /// A list of the member; `flattened` lists have no element around them.
    List {
        /// The element.
        member: Member,
        /// Whether query and XML leave out the element around the list.
        flattened: bool,
    },
    /// A map from text to the value.
    Map {
        /// The key.
        key: Member,
        /// The value.
        value: Member,
        /// Whether query and XML leave out the element around the map.
        flattened: bool,
    },
    /// A structure.
    Structure(&'static Structure),
}

impl Shape {
    /// A shape without constraints.
    pub const fn new(kind: Kind) -> Self {
        Shape { kind, min: None, max: None, values: &[], pattern: None, sensitive: false }
    }

    /// A list.
    pub const fn list(member: Member) -> Self {
        Shape::new(Kind::List { member, flattened: false })
    }

    /// A map.
    pub const fn map(key: Member, value: Member) -> Self {
        Shape::new(Kind::Map { key, value, flattened: false })
    }

    /// A structure.
    pub const fn structure(structure: &'static Structure) -> Self {
        Shape::new(Kind::Structure(structure))
    }

    /// Leaves out the element around a list or map.
    pub const fn flattened(mut self) -> Self {
        match &mut self.kind {
            Kind::List { flattened, .. } | Kind::Map { flattened, .. } => *flattened = true,
            _ => {}
        }
        self
    }

    /// Sets the smallest length or value.
    pub const fn min(mut self, min: f64) -> Self {
        self.min = Some(min);
        self
    }

    /// Sets the largest length or value.
    pub const fn max(mut self, max: f64) -> Self {
        self.max = Some(max);
        self
    }

    /// Sets the allowed values.
    pub const fn values(mut self, values: &'static [&'static str]) -> Self {
        self.values = values;
        self
    }

    /// Sets the pattern: Amazon's spelling and the `regex` crate's.
    pub const fn pattern(mut self, text: &'static str, regex: &'static str) -> Self {
        self.pattern = Some(Pattern { text, regex });
        self
    }

    /// Keeps the value out of logs.
    pub const fn sensitive(mut self) -> Self {
        self.sensitive = true;
        self
    }
}

/// Unconstrained text.
pub static STRING: Shape = Shape::new(Kind::String);
/// Unconstrained 32-bit integer.
pub static INTEGER: Shape = Shape::new(Kind::Integer);
/// Unconstrained 64-bit integer.
pub static LONG: Shape = Shape::new(Kind::Long);
/// Unconstrained single-precision number.
pub static FLOAT: Shape = Shape::new(Kind::Float);
/// Unconstrained double-precision number.
pub static DOUBLE: Shape = Shape::new(Kind::Double);
/// A truth value.
pub static BOOLEAN: Shape = Shape::new(Kind::Boolean);
/// Unconstrained bytes.
pub static BLOB: Shape = Shape::new(Kind::Blob);
/// A point in time.
pub static TIMESTAMP: Shape = Shape::new(Kind::Timestamp);
/// Any JSON.
pub static DOCUMENT: Shape = Shape::new(Kind::Document);
