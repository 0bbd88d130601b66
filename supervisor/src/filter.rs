//! The filter grammar of containerd: `name==x,labels."k"~=regex`.
